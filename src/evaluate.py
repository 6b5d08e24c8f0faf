"""Turn captions of the test images into predictions.csv and scores (step 9 of the data path).

A predictions.csv is scored without a model: `eval.py predictions=<file>`.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionedImage
from src.metrics.scorer import CaptionScorer, Scores
from src.models.vit_gpt2 import VitGpt2
from src.report.cross_attention_maps import write_cross_attention_maps
from src.report.run_files import read_predictions
from src.utils.errors import UserError
from src.utils.files import write_csv, write_json
from src.utils.logging import get_logger

log = get_logger(__name__)
MAX_ATTENTION_MAPS = 60  # images of the report with cross-attention maps
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
    base_captions: dict[str, str] | None = None
    if zero_shot:
        with model.captioner.base_weights():
            base_metrics, base_captions = _test(model, datamodule, trainer, None)
        metrics |= {f"zero_shot/{key}": value for key, value in base_metrics.items()}
    metrics["data/unreadable_images"] = len(datamodule.all_unreadable())
    if not trainer.is_global_zero:
        return metrics
    images = [image for image in datamodule.splits["test"] if image.image_id in captions]
    scores, base_scores = _score(scorer, images, captions), None
    metrics |= scores.flat("test/")
    if base_captions is not None:
        base_scores = _score(scorer, images, base_captions)
        metrics |= base_scores.flat("zero_shot/test/")
    # before the larger files: the disk may be nearly full
    write_json(folder / "metrics.json", {**(earlier or {}), **metrics})
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
    ids = [image.image_id for image in images]
    return scorer.score(ids, [captions[image_id] for image_id in ids], [image.captions for image in images])


def write_predictions(
    path: Path,
    images: Sequence[CaptionedImage],
    captions: Mapping[str, str],
    scores: Scores,
    base_captions: Mapping[str, str] | None = None,
    base_scores: Scores | None = None,
) -> None:
    """Write one row per image: captions, references and per-image scores; text as it is in the data.

    A UserError where the file cannot be written; an earlier one is unchanged.
    """
    # Of subfigures and of images in tar files, which the report cuts out by them.
    optional = [name for name in ("box", "span") if any(getattr(image, name) for image in images)]
    num_references = max(len(image.captions) for image in images)
    header = ["image_id", "path", *optional, "caption", "zero_shot_caption",
              *(f"reference_{k + 1}" for k in range(num_references)), "license",
              *PER_IMAGE, *(f"zero_shot_{name}" for name in PER_IMAGE)]  # fmt: skip
    rows: list[list[Any]] = []
    for index, image in enumerate(images):
        where = [" ".join(map(str, getattr(image, name) or ())) for name in optional]
        base = (base_captions or {}).get(image.image_id, "")
        padding = [""] * (num_references - len(image.captions))
        text = [image.image_id, image.path, *where, captions[image.image_id], base, *image.captions, *padding,
                image.license]  # fmt: skip
        # Lone surrogates, which JSON files may hold and UTF-8 cannot, are replaced.
        rows.append([cell.encode("utf-8", "replace").decode() for cell in text])
        rows[-1] += [scores.per_image[index][name] for name in PER_IMAGE]
        rows[-1] += [base_scores.per_image[index][name] if base_scores else "" for name in PER_IMAGE]
    try:
        write_csv(path, header, rows)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); expected room for it; free some space"
        ) from error


def rescore(predictions: Path, folder: Path, scorer: CaptionScorer) -> dict[str, float]:
    """Score a `predictions.csv` without a model; write its copy with the scores into `folder`.

    A UserError where there is no such file, or it is not csv in UTF-8 with the columns needed.
    """
    try:
        rows = read_predictions(predictions)
        if not any(row.references for row in rows):
            raise ValueError("no row has a reference_1")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"predictions={str(predictions)!r} cannot be read ({error}); expected a csv file in UTF-8 with image_id, "
            "caption, reference_1, ...; set predictions=<run>/predictions.csv"
        ) from error
    images = [
        CaptionedImage(row.image_id, row.path, row.references, row.image_id, row.box, row.license, span=row.span)
        for row in rows
    ]
    captions = {row.image_id: row.caption for row in rows}
    scores, base_scores = _score(scorer, images, captions), None
    metrics = scores.flat("test/")
    base_captions = {row.image_id: row.zero_shot_caption or "" for row in rows}
    if any(base_captions.values()):  # some of the base's captions may be empty
        base_scores = _score(scorer, images, base_captions)
        metrics |= base_scores.flat("zero_shot/test/")
    write_predictions(folder / "predictions.csv", images, captions, scores, base_captions, base_scores)
    return metrics
