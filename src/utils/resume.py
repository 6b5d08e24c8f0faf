"""Resume training in the run's own folder, with the settings, data and split that it began with."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.utils.errors import ConfigErrors, UserError
from src.utils.run_folder import resolve_checkpoint

SAME = ("datamodule", "model", "seed", "trainer.accumulate_grad_batches", "trainer.precision")
# What may differ: where the data lies now (splits.csv tells whether it is the same), speed, and how captions are made.
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
