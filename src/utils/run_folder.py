"""Find run folders and checkpoints, resume a run in its folder, keep secrets out of files."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf, StringNode, open_dict, read_write

from src.utils.errors import ConfigErrors, UserError
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
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values: Any = OmegaConf.to_container(own, resolve=True)
    return _without_secrets({key: value for key, value in values.items() if key != "logger"})


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


SAME = ("datamodule", "model", "seed", "trainer.accumulate_grad_batches", "trainer.precision")
# What may differ: where the data lies now (splits.csv shows whether it is the same), speed, and how captions are made.
FREE = ("datamodule.data_dir", "datamodule.download", "datamodule.num_workers", "datamodule.pin_memory",
        "datamodule.check_images", "datamodule.max_skipped", "datamodule.generation_length", "model.num_beams",
        "model.max_length", "model.compile", "model.kernels", "model.checkpoint")  # fmt: skip


def resumed_run(ckpt_path: str | None, log_dir: str | Path, task_name: str | None) -> Path | None:
    """Return the run folder in which training with this `ckpt_path` continues, None for a new one.

    It continues in a run's folder from `<run>/checkpoints/last.ckpt`, also when named as the run folder or `last`.
    From any other checkpoint, `best.ckpt` or a file that was moved, a new run begins.
    """
    try:
        file = resolve_checkpoint(ckpt_path, log_dir, task_name, which="last") if ckpt_path else None
    except UserError:  # the check of the config reports it
        return None
    if file is None or Path(file).name != "last.ckpt":
        return None
    run = Path(file).resolve().parent.parent
    return run if Path(file).resolve().parent.name == "checkpoints" and (run / "run.json").is_file() else None


def check_same_settings(now: Mapping[str, Any], before: Mapping[str, Any], source: str | Path) -> None:
    """Refuse to resume with settings that would be ignored, or that would make another run of it.

    The optimizer's settings, the learning rate among them, and the order of images are part of the checkpoint.

    Raises:
        ConfigErrors: one line for each setting that differs.
    """
    old, new = dict(_flat(before, "")), dict(_flat(now, ""))
    missing = object()
    lines = [
        f"{key}={_shown(new.get(key))}; expected {_shown(old.get(key))} as in {source}, which this run resumes; "
        f"set {key}={_shown(old.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if key.startswith(tuple(f"{name}." for name in SAME)) or key in SAME
        if key not in FREE and old.get(key, missing) != new.get(key, missing) and _known(old, key)
    ]
    if lines:
        raise ConfigErrors(lines)


def read_splits(checkpoint: str | Path) -> dict[str, str]:
    """Return image_id -> split of the run that wrote a checkpoint, {} where there is no `splits.csv` beside it."""
    path = Path(checkpoint).resolve().parent.parent / "splits.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["image_id"]: row["split"] for row in csv.DictReader(file)}


def check_same_splits(now: Mapping[str, str], checkpoint: str | Path) -> None:
    """Refuse to resume on other images or another split than the run began with.

    Raises:
        UserError: an image is new, missing or in another split.
    """
    before = read_splits(checkpoint)
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if before and changed:
        name = changed[0]
        raise UserError(
            f"the images or their splits differ from the run that ckpt_path resumes: {len(changed)} of {len(before)}, "
            f"first {name!r} (was {before.get(name)}, is {now.get(name)}); expected the same data and split; set "
            "datamodule.data_dir to the same data, or start a new run without ckpt_path"
        )


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(item) if isinstance(item, tuple) else item


def _known(old: Mapping[str, Any], key: str) -> bool:
    """Whether the earlier config has the group at all: a checkpoint from elsewhere may hold none."""
    return any(name.split(".")[0] == key.split(".")[0] for name in old)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
