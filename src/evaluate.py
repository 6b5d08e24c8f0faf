"""Turn captions of the test images into predictions.csv and scores (step 9 of the data path).

A predictions.csv is scored without a model: `eval.py predictions=<file>`.
"""

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
from src.report.run_files import read_box, read_span
from src.utils.errors import UserError
from src.utils.files import atomic_write, write_json
from src.utils.logging import get_logger

log = get_logger(__name__)
MAX_ATTENTION_MAPS = 60  # images of the report with cross-attention maps
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
    earlier: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Score the model, and with zero_shot the untrained base beside it, on the test images.

    Writes `metrics.json` first, with the metrics of `earlier`, then `predictions.csv` and `attention.json`.
    Returns `test/...` and `zero_shot/test/...` scores.

    Raises:
        UserError: no test image could be read, or predictions.csv cannot be written.
    """
    metrics, captions = _test(model, datamodule, trainer, ckpt_path)
    base_metrics: dict[str, float] = {}
    base_captions: dict[str, str] | None = None
    if zero_shot:
        with model.captioner.base_weights():
            base_metrics, base_captions = _test(model, datamodule, trainer, None)
    metrics["data/unreadable_images"] = len(datamodule.all_unreadable())
    if not trainer.is_global_zero:
        return metrics
    images = [image for image in datamodule.splits["test"] if image.image_id in captions]
    scores, base_scores = _score(scorer, images, captions), None
    metrics |= scores.flat("test/")
    if base_captions is not None:
        base_scores = _score(scorer, images, base_captions)
        base_metrics |= base_scores.flat("test/")
        metrics |= {f"zero_shot/{key}": value for key, value in base_metrics.items()}
    write_json(
        folder / "metrics.json", {**(earlier or {}), **metrics}
    )  # before the larger files: the disk may be nearly full
    write_predictions(folder / "predictions.csv", images, captions, scores, base_captions, base_scores)
    try:
        path = folder / "attention.json"
        write_cross_attention_maps(model, images, captions, path, most=MAX_ATTENTION_MAPS)
    except OSError as error:
        log.warning("attention.json cannot be written (%s); free some space", error.strerror or error)
    return metrics


def _test(
    model: VitGpt2, datamodule: CaptionDataModule, trainer: pl.Trainer, ckpt_path: str | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Return loss and captions (by image_id) of the test images of all processes."""
    trainer.test(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
    return {"test/loss": float(trainer.callback_metrics["test/loss"])}, model.test_captions


def _score(scorer: CaptionScorer, images: Sequence[CaptionedImage], captions: Mapping[str, str]) -> Scores:
    if not images:
        raise UserError("no test image could be read; expected at least one; see the reasons above")
    return scorer.score(
        [image.image_id for image in images],
        [captions[image.image_id] for image in images],
        [image.captions for image in images],
    )


def finite_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Convert logged tensors to floats and drop what is not finite."""
    values = {key: float(value) for key, value in metrics.items()}
    return {key: value for key, value in values.items() if math.isfinite(value)}


def write_predictions(
    path: Path,
    images: Sequence[CaptionedImage],
    captions: Mapping[str, str],
    scores: Scores,
    base_captions: Mapping[str, str] | None = None,
    base_scores: Scores | None = None,
) -> None:
    """Write one row per image: captions, references and per-image scores; text as it is in the data.

    Raises:
        UserError: the file cannot be written; an earlier one is unchanged.
    """
    num_references = max(len(image.captions) for image in images)
    # Of subfigures and of images in tar files, which the report cuts out by them.
    optional = [name for name in ("box", "span") if any(getattr(image, name) for image in images)]
    header = ["image_id", "path", *optional, "caption", "zero_shot_caption",
              *(f"reference_{k + 1}" for k in range(num_references)), "license",
              *PER_IMAGE, *(f"zero_shot_{name}" for name in PER_IMAGE)]  # fmt: skip
    try:
        with atomic_write(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for index, image in enumerate(images):
                base = base_captions[image.image_id] if base_captions is not None else ""
                where = [" ".join(map(str, getattr(image, name) or ())) for name in optional]
                padding = [""] * (num_references - len(image.captions))
                text = [image.image_id, image.path, *where, captions[image.image_id], base, *image.captions,
                        *padding, image.license]  # fmt: skip
                own = [scores.per_image[index][name] for name in PER_IMAGE]
                other = [base_scores.per_image[index][name] if base_scores else "" for name in PER_IMAGE]
                writer.writerow([*map(_encodable, text), *own, *other])
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); expected room for it; free some space"
        ) from error


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON files may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def rescore(predictions: Path, folder: Path, scorer: CaptionScorer) -> dict[str, float]:
    """Score a `predictions.csv` without a model; write its copy with the scores into `folder`.

    Raises:
        UserError: no such file, not a csv file in UTF-8, or columns missing.
    """
    rows = _read_rows(predictions)
    images = [
        CaptionedImage(
            row["image_id"],
            row.get("path", ""),
            _references(row),
            row["image_id"],
            read_box(row.get("box", "")),
            row.get("license", ""),
            span=read_span(row.get("span", "")),
        )
        for row in rows
    ]
    captions = {row["image_id"]: row["caption"] for row in rows}
    scores = _score(scorer, images, captions)
    metrics = scores.flat("test/")
    base_captions = base_scores = None
    if any(row.get("zero_shot_caption") for row in rows):  # some of the base's captions may be empty
        base_captions = {row["image_id"]: row["zero_shot_caption"] for row in rows}
        base_scores = _score(scorer, images, base_captions)
        metrics |= base_scores.flat("zero_shot/test/")
    write_predictions(folder / "predictions.csv", images, captions, scores, base_captions, base_scores)
    return metrics


def _read_rows(predictions: Path) -> list[dict[str, str]]:
    """Read the rows of a predictions file.

    Raises:
        UserError: no such file, not a csv file in UTF-8, or columns missing.
    """
    name = f"predictions={str(predictions)!r}"
    try:
        with predictions.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {key: value or "" for key, value in row.items() if isinstance(key, str)}
                for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(
            f"{name} cannot be read ({error.strerror}); expected a predictions.csv; "
            "set predictions=<run>/predictions.csv"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{name} is no csv file in UTF-8 ({error}); expected one that eval.py or train.py wrote; save it as UTF-8"
        ) from error
    if not rows or not {"image_id", "caption", "reference_1"} <= rows[0].keys():
        raise UserError(
            f"{name} has {', '.join(rows[0]) if rows else 'no rows'}; expected the columns image_id, caption, "
            "reference_1, ...; score a file that eval.py or train.py wrote"
        )
    return rows


def _references(row: Mapping[str, str]) -> tuple[str, ...]:
    """Return those of the columns reference_1, reference_2, ... that hold text."""
    numbers = sorted(int(key.removeprefix("reference_")) for key in row if REFERENCE.fullmatch(key))
    return tuple(row[f"reference_{k}"] for k in numbers if row[f"reference_{k}"])
