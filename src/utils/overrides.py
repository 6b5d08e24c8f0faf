"""What is wrong with the overrides of a command line, all at once."""

import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def explain_overrides(arguments: Sequence[str], config_name: str | None = None) -> list[str]:
    """One entry for each override whose key or group option does not exist, with the nearest that does.

    Overrides of groups that exist are applied first, so that their keys are known.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    name = config_name or Path(sys.argv[0]).stem
    pairs = [tuple(word.split("=", 1)) for word in arguments if "=" in word and not word.startswith(("-", "~"))]
    groups = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*") if path.is_dir()}
    faults, chosen = [], []
    for key, value in pairs:
        if key.lstrip("+") in groups:
            options = sorted(path.stem for path in (CONFIGS / key.lstrip("+")).glob("*.yaml"))
            if value.removesuffix(".yaml") in options or "," in value:
                chosen.append(f"{key}={value.split(',')[0]}")
            else:
                faults.append(f"{key}={value}; expected one of {', '.join(options)}")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose(name, chosen, return_hydra_config=True)
    except Exception as error:  # the groups alone do not compose: their own message says why
        return [*faults, " ".join(str(error).split())]
    known = list(_keys(OmegaConf.to_container(config, resolve=False)))
    for key, _ in pairs:
        if key.startswith("+") or key in groups or key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f" did you mean {near[0]}?" if near else ""
        faults.append(f"{key} is not a setting;{hint} `python {name}.py --cfg job` shows all, +{key}=... adds one")
    return faults


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")
