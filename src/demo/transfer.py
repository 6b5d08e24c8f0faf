"""Store a demo run with the project, small, so that the notebook and the README work without training.

    python -m src.demo.transfer run_dir=<run> [out=src/demo/flickr] [images=24]

Absolute paths become relative to the project's folder; what only resuming needs is dropped.
"""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.summary.writer.record_writer import RecordWriter

from src.models.checkpoint import METADATA_KEY, read_checkpoint
from src.utils.entry import parse_command, run_command
from src.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("src/demo/flickr")
REQUIRED = ("config_resolved.yaml", "metrics.json", "run.json", "predictions.csv", "checkpoints/best.ckpt")
WITH_PATHS = ("config_resolved.yaml", "run.json")
OPTIONAL = ("splits.csv", "skipped.csv", "attention.json", "losses.png")
DROPPED_TAGS = re.compile(r"^gradients/|^_hparams_|text_summary")  # large, or with paths


def transfer(run_dir: str | Path, out: str | Path = OUT, images: int = 24) -> Path:
    """Copy config, metrics, curves, TensorBoard events, predictions, trained weights and the first test images.

    run_dir: a finished run of `train.py`; out: the folder to make or replace, in the project's if relative.
    Raises UserError where the run folder lacks a file, or `out` is a folder that is no run.
    """
    run, target = Path(run_dir).resolve(), ROOT / out
    missing = [name for name in REQUIRED if not (run / name).is_file()]
    if missing:
        raise UserError(
            f"run_dir={str(run_dir)!r} lacks {', '.join(missing)}; expected the folder of a finished "
            "training run; set run_dir=logs/train/runs/<stamp>"
        )
    is_foreign = target.is_dir() and any(target.iterdir()) and not (target / "metrics.json").is_file()
    if is_foreign or not target.is_relative_to(ROOT):
        raise UserError(
            f"out={str(out)!r} is outside the project or holds other files; expected a run; set another out"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        folder = Path(temporary) / "run"
        for name in ("csv", "tensorboard", "checkpoints", "Images"):
            (folder / name).mkdir(parents=True)
        for name in ("metrics.json", *OPTIONAL):
            if (run / name).is_file():
                shutil.copyfile(run / name, folder / name)
        for name in WITH_PATHS:
            text = _portable((run / name).read_text(encoding="utf-8"), run, target)
            (folder / name).write_text(text, encoding="utf-8")
        for path in (run / "csv").glob("**/metrics.csv"):
            shutil.copyfile(path, folder / "csv" / "metrics.csv")
        _copy_events(run / "tensorboard", folder / "tensorboard" / "events.out.tfevents.0.demo")
        content = read_checkpoint(run / "checkpoints" / "best.ckpt")
        kept = {
            name: content[name]
            for name in ("epoch", "global_step", "pytorch-lightning_version", "state_dict")
        }
        kept[METADATA_KEY] = json.loads(_portable(json.dumps(content[METADATA_KEY]), run, target))
        torch.save(kept, folder / "checkpoints" / "best.ckpt")
        _copy_predictions(run, folder, target, images)
        if target.is_dir():
            shutil.rmtree(target)
        folder.rename(target)
    return target


def _portable(text: str, run: Path, target: Path) -> str:
    """Replace the folders of the run and of the project."""
    project = "${oc.env:PROJECT_ROOT}"
    return text.replace(str(run), f"{project}/{target.relative_to(ROOT)}").replace(str(ROOT), project)


def _copy_events(source: Path, out: Path) -> None:
    with out.open("wb") as file:
        writer = RecordWriter(file)
        for path in sorted(source.glob("**/events.out.tfevents.*")):
            for event in LegacyEventFileLoader(str(path)).Load():
                kept = [value for value in event.summary.value if not DROPPED_TAGS.search(value.tag)]
                if event.HasField("summary"):
                    del event.summary.value[:]
                    event.summary.value.extend(kept)
                writer.write(event.SerializeToString())
        writer.flush()


def _copy_predictions(run: Path, folder: Path, target: Path, images: int) -> None:
    """Copy predictions.csv with paths relative to it; the first images are put beside it in `Images/`."""
    rows = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False)
    up, paths = "../" * len(target.relative_to(ROOT).parts), []
    for index, path in enumerate(map(Path, rows["path"])):
        if index < images and path.is_file():
            name = path.name if not (folder / "Images" / path.name).exists() else f"{index}_{path.name}"
            shutil.copyfile(path, folder / "Images" / name)
            paths.append(f"Images/{name}")
        else:  # an image outside the project is of no use on another machine
            paths.append(up + path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else "")
    rows.assign(path=paths).to_csv(folder / "predictions.csv", index=False, lineterminator="\n")


def main(arguments: list[str]) -> None:
    """Parse `key=value` arguments and transfer."""
    settings = parse_command(arguments, {"run_dir": None, "out": str(OUT), "images": 24})
    folder = transfer(**settings)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
