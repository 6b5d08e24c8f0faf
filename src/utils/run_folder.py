"""Run folders: where they are, and the way back to a run's checkpoint."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf, StringNode, open_dict, read_write

from src.utils.errors import UserError
from src.utils.files import atomic_write

PROJECT_LOGS = Path(__file__).resolve().parents[2] / "logs"  # where configs/paths puts the runs


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all.

    Raises:
        UserError: the file cannot be written; one that was there stays as it was.
    """
    try:
        with atomic_write(path) as file:
            json.dump(content, file, indent=2)
            file.write("\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); expected room for it; free some space"
        ) from error


def newest_run(log_dir: str | Path, task_name: str | None = None) -> Path:
    """Return the run folder whose `last.ckpt` was written last, of one task or of any.

    Raises:
        UserError: no run has one.
    """
    folder, task = Path(log_dir).expanduser(), task_name or "*"
    patterns = (f"{task}/runs/*/checkpoints/last.ckpt", f"{task}/multiruns/*/*/checkpoints/last.ckpt")
    found = [file for pattern in patterns for file in folder.glob(pattern)]
    if not found:
        raise UserError(
            f"ckpt_path=last: no run under {folder / task} left a checkpoint; expected one; set ckpt_path=FILE"
        )
    return max(found, key=lambda file: file.stat().st_mtime_ns).parents[1]


def resolve_checkpoint(
    value: str | Path | None, log_dir: str | Path, task_name: str | None = None, which: str = "best"
) -> Path | None:
    """Return the checkpoint file that `value` means: a file, a run folder, `last`; None for anything else.

    which: the file to take of a run folder, `best` (`last.ckpt` where there is no best) or `last`.

    Raises:
        UserError: `last` without a run, or a run folder without a checkpoint.
    """
    if not value:
        return None
    run = newest_run(log_dir, task_name) if str(value) == "last" else Path(value).expanduser()
    if run.is_file():
        return run.resolve()
    names = ["last.ckpt"] if which == "last" else ["best.ckpt", "last.ckpt"]
    for name in names:
        if (run / "checkpoints" / name).is_file():
            return (run / "checkpoints" / name).resolve()
    if (run / "run.json").is_file() and not (run / "config.json").is_file():
        raise UserError(
            f"{value} holds no checkpoints/{names[0]}; expected a run that trained; set ckpt_path=FILE"
        )
    return None


def find_checkpoint(
    ckpt_path: str | None,
    log_dir: str | Path,
    task_name: str | None = None,
    which: str = "best",
    saved: bool = False,
) -> str | None:
    """Return the checkpoint file that `ckpt_path` means, None for null; see `resolve_checkpoint`.

    saved: whether a folder of `save_pretrained` or a hub id may be meant instead, which give None too.

    Raises:
        UserError: there is none.
    """
    found = resolve_checkpoint(ckpt_path, log_dir, task_name, which)
    if ckpt_path and found is None and not (saved and _is_saved(ckpt_path)):
        raise UserError(
            f"ckpt_path={ckpt_path!r} does not exist; expected a .ckpt file, a run folder or `last`; "
            "set ckpt_path=<run>/checkpoints/best.ckpt"
        )
    return str(found) if found else None


def _is_saved(name: str) -> bool:
    """Whether a folder of `save_pretrained` is there, or the name has the form of a hub id."""
    path = Path(name).expanduser()
    is_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and path.suffix != ".ckpt"
    return (path / "config.json").is_file() or (is_id and not path.parent.is_dir())


def checkpoint_file(checkpoint: str, log_dir: str | Path = "") -> Path | None:
    """Return the `.ckpt` that a command's `checkpoint` means; None for a saved folder and for what may be a hub id.

    log_dir: where `last` looks for the newest run; "" for the project's `logs`.

    Raises:
        UserError: a file or folder that is not there, or a run folder without a checkpoint.
    """
    try:
        found = resolve_checkpoint(checkpoint, log_dir or PROJECT_LOGS)
    except UserError as error:
        raise UserError(str(error).replace("ckpt_path", "checkpoint")) from error
    path = Path(checkpoint).expanduser()
    is_local = path.suffix == ".ckpt" or checkpoint.startswith((".", "~", "/")) or checkpoint.count("/") > 1
    if found is None and is_local and not path.exists():
        raise UserError(
            f"checkpoint={checkpoint!r} does not exist; expected a .ckpt, a run folder, a saved folder or a hub id; "
            "set checkpoint=<run>/checkpoints/best.ckpt"
        )
    return found


def expand_home(config: DictConfig | ListConfig) -> None:
    """Expand `~` at the beginning of every text value of a config, so that no folder of that name is created."""
    with read_write(config), open_dict(config):
        names: Any = config if isinstance(config, DictConfig) else range(len(config))
        for name in names:
            node: Any = config._get_node(name)
            if (
                isinstance(node, DictConfig | ListConfig)
                and not node._is_none()
                and not node._is_interpolation()
            ):
                expand_home(node)
            elif isinstance(node, AnyNode | StringNode) and re.match(r"~(/|$)", str(node._value())):
                config[name] = str(Path(node._value()).expanduser())


# Names of secrets: api_key, HF_TOKEN, password; not tokenizer, keyword or max_caption_tokens.
SECRET = re.compile(
    r"(?:^|[_.-])(?:(?:api)?keys?|token|passw(?:or)?d|passphrase|secret|credentials?)(?:$|[_.-])",
    re.IGNORECASE,
)
OVERRIDE = re.compile(r"([+~]*[\w.@/-]+)=")


def plain_config(config: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain values, without the loggers and without anything named like a secret."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    return _without_secrets({key: value for key, value in values.items() if key not in ("logger", "hydra")})


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items() if not SECRET.search(str(key))}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


def redact(value: Any) -> Any:
    """Replace by *** what is named like a secret: in mappings, and in overrides `key=value` of a command line."""
    if isinstance(value, dict):
        return {
            key: "***" if SECRET.search(str(key)) and item else redact(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [redact(item) for item in value]
    override = OVERRIDE.match(value) if isinstance(value, str) else None
    return f"{override[1]}=***" if override and SECRET.search(override[1]) else value


def redact_hydra_files(folder: Path) -> None:
    """Redact secrets in what Hydra wrote: `<folder>/.hydra/*.yaml` and the `multirun.yaml` of a sweep."""
    for path in (*(folder / ".hydra").glob("*.yaml"), folder.parent / "multirun.yaml"):
        if not path.is_file():
            continue
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if redact(content) != content:
            with atomic_write(path) as file:
                file.write(OmegaConf.to_yaml(OmegaConf.create(redact(content))))
