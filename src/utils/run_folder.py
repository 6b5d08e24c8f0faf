"""Name run folders, find checkpoints in them, resume a run in its own folder, keep secrets out of files."""

import atexit
import contextlib
import csv
import functools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.utils.errors import ConfigErrors, UserError
from src.utils.files import atomic_write
from src.utils.logging import rank

PROJECT_LOGS = Path(__file__).resolve().parents[2] / "logs"  # where configs/paths puts the runs
# Names of secrets: api_key, HF_TOKEN, password; not tokenizer, keyword or max_caption_tokens.
SECRET = re.compile(r"(?i)(^|[_.-])((api)?keys?|token|passw(or)?d|passphrase|secret|credentials?)($|[_.-])")
OVERRIDE = re.compile(r"([+~]*[\w.@/-]+)=")
# What a resumed run must have as before, and what of it may differ: where the data lies now (splits.csv shows whether
# it is the same), speed, and how captions are generated.
SAME = ("datamodule.", "model.", "seed", "trainer.accumulate_grad_batches", "trainer.precision")
FREE = re.compile(
    r"datamodule\.(data_dir|download|num_workers|pin_memory|check_images|max_skipped|generation_length)"
    r"|model\.(generation\..*|compile|kernels|checkpoint)"
)


@functools.cache
def _rank_folder() -> str:
    folder = tempfile.mkdtemp(prefix="captioner-rank-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run_folder(
    log_dir: str, parent: str, ckpt_path: str | None = None, objective: str | None = None, *names: str | None
) -> str:
    """Return the folder of the run that `ckpt_path` resumes, else create `<log_dir>/<parent>/<date>_<first name>`.

    A second run of a minute gets the suffix `_2`, and a second stage a folder of its own. Any rank but 0 gets a
    temporary folder. `--cfg`, which only shows the name, creates none.
    """
    resumed = resumed_run(ckpt_path, log_dir, parent.partition("/")[0]) if rank() == 0 else None
    if resumed and objective == "scst":
        first = OmegaConf.select(OmegaConf.load(resumed / "config_resolved.yaml"), "model.objective")
        resumed = resumed if first == objective else None
    if resumed:
        return str(resumed)
    folder = Path(log_dir).expanduser() if rank() == 0 else Path(_rank_folder())
    label = next((f"_{name.removesuffix('.yaml').replace('/', '-')}" for name in names if name), "")
    name = path = folder / parent / f"{datetime.now():%Y-%m-%d_%H-%M}{label}"
    number = 1
    while not {"-c", "--cfg"} & set(sys.argv[1:]):  # creates it here, so that two processes cannot get the same
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = name.with_name(f"{name.name}_{number}")
            continue
        except OSError:  # Hydra meets it again and reports it
            pass
        break
    return str(path)


def made_folder(path: str) -> str:
    """Create a folder and return it: SQLite creates its file but no folder."""
    folder = Path(path).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def best_mode(metric: str) -> str:
    """Return the mode of callbacks that keep the best of a metric: min for a loss, else max."""
    return "min" if "loss" in metric else "max"


def register_resolvers() -> None:
    """Register `${run_folder:...}` and `${made_folder:...}` with OmegaConf; one config names one new folder."""
    for function in (run_folder, made_folder, best_mode):
        OmegaConf.register_new_resolver(function.__name__, function, use_cache=True, replace=True)


def newest_run(log_dir: str | Path, task_name: str | None = None, key: str = "ckpt_path") -> Path:
    """Return the run folder whose `last.ckpt` was written last, of one task or of any; a UserError without one.

    key: the setting that names it; `ckpt_path` takes stopped runs, which it resumes, and any other key finished ones.
    """
    folder, task = Path(log_dir).expanduser(), task_name or "*"
    patterns = [f"{task}/{runs}/checkpoints/last.ckpt" for runs in ("runs/*", "multiruns/*/*")]
    found = [file for pattern in patterns for file in folder.glob(pattern)]
    if not found:
        raise UserError(f"{key}=last: no run under {folder / task} left a checkpoint; expected one; set {key}=FILE")
    runs = [file.parents[1] for file in sorted(found, key=lambda file: file.stat().st_mtime_ns)]
    ended = runs if key == "ckpt_path" else [run for run in runs if _status(run) == "finished"]
    if not ended:
        raise UserError(
            f"{key}=last: {runs[-1]} is not finished; expected a finished run; wait, or set {key}={runs[-1]}"
        )
    return ended[-1]


def _status(run: Path) -> str:
    """Return a run's status by its run.json, `finished` where it has none."""
    try:
        return str(json.loads((run / "run.json").read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, LookupError, TypeError):
        return "finished"


def checkpoint_file(
    checkpoint: str,
    log_dir: str | Path = "",
    key: str = "checkpoint",
    task_name: str | None = None,
    which: str = "best",
) -> Path | None:
    """Return the `.ckpt` that a setting means: a file, a run folder, or `last`: see `newest_run`.

    None for what may be a saved folder or a hub id; a UserError for a path to nothing. log_dir: where `last` looks, ""
    for `logs`. key: the setting's name. which: `best` (or last.ckpt where there is none) or `last` of a run folder.
    """
    is_last = checkpoint == "last"
    path = newest_run(log_dir or PROJECT_LOGS, task_name, key) if is_last else Path(checkpoint).expanduser()
    names = ["last.ckpt"] if which == "last" else ["best.ckpt", "last.ckpt"]
    for file in (path, *(path / "checkpoints" / name for name in names)):
        if file.is_file():
            return file.resolve()
    if (path / "run.json").is_file() and not (path / "config.json").is_file():
        raise UserError(f"{checkpoint} holds no checkpoints/{names[0]}; expected a run that trained; set {key}=FILE")
    if re.search(r"^[./~]|\.ckpt$|/.*/", checkpoint) and not path.exists():
        raise UserError(
            f"{key}={checkpoint!r} does not exist; expected a .ckpt, a run folder, a saved folder, a hub id or `last`; "
            f"set {key}=<run>/checkpoints/best.ckpt"
        )
    return None


def resumed_run(ckpt_path: str | None, log_dir: str | Path, task_name: str | None) -> Path | None:
    """Return the run folder of `<run>/checkpoints/last.ckpt`, where training continues; None: in a new one."""
    file = None
    with contextlib.suppress(UserError):  # which `train` reports
        file = checkpoint_file(ckpt_path, log_dir, "ckpt_path", task_name, "last") if ckpt_path else None
    is_last = file is not None and file.parts[-2:] == ("checkpoints", "last.ckpt")
    return file.parents[1] if file and is_last and (file.parents[1] / "run.json").is_file() else None


def check_same_settings(now: Mapping[str, Any], before: Mapping[str, Any], source: str | Path) -> None:
    """Refuse to resume with settings that would be ignored, or that would make another run of it."""
    old, new = dict(flat(before)), dict(flat(now))
    groups = {key.split(".")[0] for key in old}  # a checkpoint from elsewhere may hold none
    lines = []
    for key in sorted(old.keys() | new.keys()):
        fixed = key.startswith(SAME) and not FREE.fullmatch(key) and key.split(".")[0] in groups
        if fixed and (key not in old or old[key] != new.get(key)):
            was, given = shown(old.get(key)), shown(new.get(key))
            lines.append(f"{key}={given}; expected {was} as in {source}, which this run resumes; set {key}={was}")
    if lines:
        raise ConfigErrors(lines)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings under their dotted keys."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from flat(item, f"{prefix}{name}.")
    else:
        yield prefix[:-1], list(value) if isinstance(value, tuple) else value


def shown(value: Any) -> str:
    """Return a value as it is written on a command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def read_splits(checkpoint: str | Path) -> dict[str, str]:
    """Return image_id -> split of the run that wrote a checkpoint, {} where there is no `splits.csv` beside it."""
    path = Path(checkpoint).resolve().parent.parent / "splits.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["image_id"]: row["split"] for row in csv.DictReader(file)}


def check_same_splits(now: Mapping[str, str], checkpoint: str | Path) -> None:
    """Refuse to resume where an image is new, missing or in another split than the run began with."""
    before = read_splits(checkpoint)
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if before and changed:
        raise UserError(
            f"the images or their splits differ from the run that ckpt_path resumes: {len(changed)} of {len(before)}, "
            f"first {changed[0]!r} (was {before.get(changed[0])}, is {now.get(changed[0])}); expected the same data "
            "and split; set datamodule.data_dir to the same data, or start a new run without ckpt_path"
        )


def expand_home(config: DictConfig) -> None:
    """Expand `~` at the beginning of every text value of a config, so that no folder of that name is created."""
    for key, value in flat(OmegaConf.to_container(config, resolve=False)):
        if isinstance(value, str) and re.match(r"~(/|$)", value):
            OmegaConf.update(config, key, os.path.expanduser(value), force_add=True)


def plain_config(config: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain values, without the loggers and without anything named like a secret."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", "logger")])
    return redact(OmegaConf.to_container(own, resolve=True), remove=True)


def redact(value: Any, remove: bool = False) -> Any:
    """Replace by *** what is named like a secret: in mappings, and in overrides `key=value` of a command line.

    remove: leave it out of mappings instead.
    """
    if isinstance(value, dict):
        secret = {key for key in value if SECRET.search(str(key))}
        kept = {key: redact(item, remove) for key, item in value.items() if key not in secret}
        return kept if remove else {key: "***" if key in secret else kept[key] for key in value}
    if isinstance(value, list):
        return [redact(item, remove) for item in value]
    override = OVERRIDE.match(value) if isinstance(value, str) else None
    return f"{override[1]}=***" if override and SECRET.search(override[1]) else value


def redact_hydra_files(folder: Path) -> None:
    """Redact secrets in what Hydra wrote: `<folder>/.hydra/*.yaml` and the `multirun.yaml` of a sweep."""
    for path in (*(folder / ".hydra").glob("*.yaml"), folder.parent / "multirun.yaml"):
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.is_file() else None
        if redact(content) != content:
            with atomic_write(path) as file:
                file.write(OmegaConf.to_yaml(OmegaConf.create(redact(content))))
