"""Keep a demo run with the project, small, so that the notebook and the README work without training.

    python -m src.demo.transfer run_dir=<run> [out=src/demo/flickr] [pictures=24]

Paths of this machine become paths from the project's folder; what only resuming needs stays behind.
"""

import csv
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.utils.command import parse_command, run_command
from src.utils.errors import UserError
from src.utils.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("src/demo/flickr")
NEEDED = ("config_resolved.yaml", "metrics.json", "run.json", "predictions.csv", "checkpoints/best.ckpt")
AS_THEY_ARE = ("metrics.json", "splits.csv", "skipped.csv", "attention.json", "losses.png")
WITH_PATHS = ("config_resolved.yaml", "run.json")
PROJECT = "${oc.env:PROJECT_ROOT}"  # what a config calls the project's folder


def transfer(run_dir: str | Path, out: str | Path = OUT, pictures: int = 24) -> Path:
    """Copy config, metrics, curves, TensorBoard events, predictions, trained weights and some test pictures.

    run_dir: a finished run of `train.py`; out: the folder to make or replace, in the project's if relative;
    pictures: how many test pictures come along, the first ones of predictions.csv.

    Raises:
        UserError: the run folder lacks a file.
    """
    run, target = Path(run_dir).resolve(), ROOT / out
    missing = [name for name in NEEDED if not (run / name).is_file()]
    if missing:
        raise UserError(
            f"run_dir={str(run_dir)!r} lacks {', '.join(missing)}; expected the folder of a finished "
            "training run; set run_dir=logs/train/runs/<stamp>"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        folder.chmod(0o755)
        _copy_texts(run, folder, target)
        _copy_events(run / "tensorboard", folder / "tensorboard")
        _copy_weights(run / "checkpoints" / "best.ckpt", folder / "checkpoints" / "best.ckpt", run, target)
        _copy_predictions(run, folder, target, pictures)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def portable(value: Any, run: Path, target: Path) -> Any:
    """`value` with the run's folder and the project's, wherever they stand in its strings, made movable."""
    if isinstance(value, Mapping):
        return {key: portable(item, run, target) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item, run, target) for item in value]
    if not isinstance(value, str):
        return value
    inside = target.relative_to(ROOT) if target.is_relative_to(ROOT) else target
    return value.replace(str(run), f"{PROJECT}/{inside}").replace(str(ROOT), PROJECT)


def _copy_texts(run: Path, folder: Path, target: Path) -> None:
    for name in AS_THEY_ARE:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    for name in WITH_PATHS:
        text = (run / name).read_text(encoding="utf-8")
        (folder / name).write_text(portable(text, run, target), encoding="utf-8")
    (folder / "csv").mkdir()
    for path in (run / "csv").glob("**/metrics.csv"):
        shutil.copyfile(path, folder / "csv" / "metrics.csv")


def _copy_events(source: Path, out: Path) -> None:
    """All event files as one, without gradients (bulk) and settings (paths)."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.summary.writer.record_writer import RecordWriter

    out.mkdir()
    with (out / "events.out.tfevents.0.demo").open("wb") as file:
        writer = RecordWriter(file)
        for path in sorted(source.glob("**/events.out.tfevents.*")):
            for event in LegacyEventFileLoader(str(path)).Load():
                kept = [value for value in event.summary.value if not _bulky(value.tag)]
                if event.HasField("summary"):
                    del event.summary.value[:]
                    event.summary.value.extend(kept)
                writer.write(event.SerializeToString())
        writer.flush()


def _bulky(tag: str) -> bool:
    return tag.startswith(("gradients/", "_hparams_")) or "text_summary" in tag


def _copy_weights(source: Path, out: Path, run: Path, target: Path) -> None:
    """The trained weights, their base and config; the optimizer stays behind."""
    import torch

    from src.models.checkpoint import METADATA_KEY, read_checkpoint

    content = read_checkpoint(source)
    kept = {
        name: content[name] for name in ("epoch", "global_step", "pytorch-lightning_version", "state_dict")
    }
    kept[METADATA_KEY] = portable(content[METADATA_KEY], run, target)
    with atomic_write(out, "wb") as file:
        torch.save(kept, file)


def _copy_predictions(run: Path, folder: Path, target: Path, pictures: int) -> None:
    """predictions.csv with paths from its own folder; the first pictures lie beside it in `Images/`."""
    (folder / "Images").mkdir()
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows):
        path = Path(row["path"])
        if place < pictures and path.is_file():
            shutil.copyfile(path, folder / "Images" / path.name)
            row["path"] = f"Images/{path.name}"
        elif path.is_relative_to(ROOT) and target.is_relative_to(ROOT):
            up = len(target.relative_to(ROOT).parts)
            row["path"] = "/".join([".."] * up + [path.relative_to(ROOT).as_posix()])
        elif target.is_relative_to(ROOT):
            row["path"] = ""  # somewhere on this machine: of no use on another
    with atomic_write(folder / "predictions.csv") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: list[str]) -> None:
    """Read `key=value` arguments and transfer."""
    settings = parse_command(arguments, {"run_dir": None, "out": str(OUT), "pictures": 24})
    folder = transfer(settings["run_dir"], settings["out"], settings["pictures"])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
