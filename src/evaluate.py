"""Step 9 of the data path: captions of test images become scores and files to look at."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionedImage
from src.metrics.scorer import CaptionScorer, Scores
from src.models.vit_gpt2 import VitGpt2
from src.report.cross_attention_maps import write_cross_attention_maps
from src.report.run_files import read_box
from src.utils.csv_cells import plain_cell, safe_cell
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)
WORD_MAPS = 60  # pictures of the report that show where each word looked
REFERENCE = re.compile(r"reference_[1-9][0-9]*")
PER_IMAGE = ("bleu_4", "rouge_l", "cider_d")


def evaluate(
    model: VitGpt2,
    datamodule: CaptionDataModule,
    trainer: pl.Trainer,
    folder: Path,
    scorer: CaptionScorer,
    ckpt_path: str | None = None,
    zero_shot: bool = True,
) -> dict[str, float]:
    """Score the model, and the untouched base beside it, on the test images.

    Writes `predictions.csv` and `attention.json`. Returns `test/...` and `zero_shot/test/...`, flat.
    """
    metrics, captions = _test(model, datamodule, trainer, ckpt_path)
    base_metrics: dict[str, float] = {}
    base_captions: dict[str, str] | None = None
    if zero_shot:
        with model.base_weights():
            base_metrics, base_captions = _test(model, datamodule, trainer, None)
    metrics["data/broken_images"] = len(datamodule.broken_everywhere())
    if not trainer.is_global_zero:
        return metrics
    images = [image for image in datamodule.splits["test"] if image.image_id in captions]
    scores = _score(scorer, images, captions)
    metrics |= flat(scores, "test")
    base_scores = None
    if base_captions is not None:
        base_scores = _score(scorer, images, base_captions)
        metrics |= {
            f"zero_shot/{key}": value for key, value in (base_metrics | flat(base_scores, "test")).items()
        }
    write_predictions(folder / "predictions.csv", images, captions, scores, base_captions, base_scores)
    write_cross_attention_maps(model, images, captions, folder / "attention.json", most=WORD_MAPS)
    return metrics


def _test(
    model: VitGpt2, datamodule: CaptionDataModule, trainer: pl.Trainer, ckpt_path: str | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Loss and captions over the test images of all processes."""
    model.captions = {}
    try:
        trainer.test(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
        return {"test/loss": float(trainer.callback_metrics["test/loss"])}, model.captions
    finally:
        model.captions = None


def _score(scorer: CaptionScorer, images: Sequence[CaptionedImage], captions: Mapping[str, str]) -> Scores:
    if not images:
        raise UserError("no test image could be read; expected at least one; see the reasons above")
    return scorer.score(
        [image.image_id for image in images],
        [captions[image.image_id] for image in images],
        [list(image.captions) for image in images],
    )


def flat(scores: Scores, prefix: str) -> dict[str, float]:
    """Corpus scores and their intervals as `test/cider_d`, `test/cider_d_low`, `test/cider_d_high`."""
    metrics = {f"{prefix}/{name}": value for name, value in scores.corpus.items()}
    for name, (low, high) in scores.intervals.items():
        metrics |= {f"{prefix}/{name}_low": low, f"{prefix}/{name}_high": high}
    return metrics


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Logged tensors as plain finite numbers."""
    values = {key: float(value) for key, value in metrics.items()}
    return {key: value for key, value in values.items() if math.isfinite(value)}


def write_predictions(
    path: Path,
    images: list[CaptionedImage],
    captions: Mapping[str, str],
    scores: Scores,
    base_captions: Mapping[str, str] | None = None,
    base_scores: Scores | None = None,
) -> None:
    """One row per image: captions, references and per-image scores; text that a spreadsheet would run is guarded.

    Raises:
        UserError: the file cannot be written; one that was there stays as it was.
    """
    most = max(len(image.captions) for image in images)
    boxes = any(image.box for image in images)  # parts of pictures, which the report cuts out by them
    header = ["image_id", "path", *(["box"] if boxes else []), "caption", "zero_shot_caption",
              *(f"reference_{k + 1}" for k in range(most)), "licence",
              *PER_IMAGE, *(f"zero_shot_{name}" for name in PER_IMAGE)]  # fmt: skip
    try:
        with atomic_write(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for index, image in enumerate(images):
                references = [*image.captions, *[""] * (most - len(image.captions))]
                base = base_captions[image.image_id] if base_captions is not None else ""
                box = [" ".join(map(str, image.box or ()))] if boxes else []
                said = [captions[image.image_id], base]
                text = [image.image_id, image.path, *box, *said, *references, image.licence]
                own = [scores.per_image[index][name] for name in PER_IMAGE]
                other = [base_scores.per_image[index][name] if base_scores else "" for name in PER_IMAGE]
                writer.writerow([*map(safe_cell, text), *own, *other])
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); expected room for it; free some space"
        ) from error


def rescore(predictions: Path, folder: Path, scorer: CaptionScorer) -> dict[str, float]:
    """Scores of a `predictions.csv` with no model; writes its copy with the scores into `folder`.

    Raises:
        UserError: no such file, not a csv file in UTF-8, or columns missing.
    """
    if not predictions.is_file():
        raise UserError(
            f"predictions={str(predictions)!r} does not exist; expected a predictions.csv; "
            "set predictions=<run>/predictions.csv"
        )
    rows = _read_rows(predictions)
    images = [
        CaptionedImage(
            row["image_id"],
            row.get("path", ""),
            _references(row),
            row["image_id"],
            read_box(row.get("box", "")),
            row.get("licence", ""),
        )
        for row in rows
    ]
    captions = {row["image_id"]: row["caption"] for row in rows}
    scores = _score(scorer, images, captions)
    metrics = flat(scores, "test")
    base_captions = base_scores = None
    if any(row.get("zero_shot_caption") for row in rows):  # of some images it may have said nothing
        base_captions = {row["image_id"]: row["zero_shot_caption"] for row in rows}
        base_scores = _score(scorer, images, base_captions)
        metrics |= flat(base_scores, "zero_shot/test")
    write_predictions(folder / "predictions.csv", images, captions, scores, base_captions, base_scores)
    return metrics


def _read_rows(predictions: Path) -> list[dict[str, str]]:
    """The file's rows, what was guarded for spreadsheets as it was.

    Raises:
        UserError: not a csv file in UTF-8, or columns missing.
    """
    try:
        with predictions.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {key: plain_cell(value or "") for key, value in row.items() if isinstance(key, str)}
                for row in csv.DictReader(file)
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"predictions={str(predictions)!r} is no csv file in UTF-8 ({error}); expected one that eval.py or "
            "train.py wrote; save it again as UTF-8"
        ) from error
    if not rows or not {"image_id", "caption", "reference_1"} <= set(rows[0]):
        found = ", ".join(rows[0]) if rows else "no rows"
        raise UserError(
            f"predictions={str(predictions)!r} has {found}; expected the columns image_id, caption, reference_1, ...; "
            "score a file that eval.py or train.py wrote"
        )
    return rows


def _references(row: Mapping[str, str]) -> tuple[str, ...]:
    """Those of the columns reference_1, reference_2, ... that hold text."""
    numbers = sorted(int(key[len("reference_") :]) for key in row if REFERENCE.fullmatch(key))
    return tuple(row[f"reference_{k}"] for k in numbers if row[f"reference_{k}"])
