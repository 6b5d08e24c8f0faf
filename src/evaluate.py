"""Turn captions of the test images into predictions.csv and scores (step 9 of the data path).

A predictions.csv is scored without a model: `eval.py predictions=<file>`.
P patches, D width, H and W an image's height and width in pixels.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import UnreadableImage, load_image
from src.metrics.bootstrap import Score, token_mean
from src.metrics.scorer import CaptionScorer, Scores
from src.models.attention_maps import visible_crop, word_attention
from src.models.vit_gpt2 import VitGpt2
from src.report.run_files import Prediction, encode_attention, random_order, read_predictions
from src.utils.errors import UserError
from src.utils.files import atomic_write, write_json, write_text
from src.utils.logging import get_logger

log = get_logger(__name__)
MAX_ATTENTION_MAPS = 60  # images of the report with cross-attention maps
PER_IMAGE = ("bleu_4", "rouge_l", "cider_d")

Losses = dict[str, tuple[float, int]]  # image_id -> nats per token of the references, and their tokens
Outputs = tuple[dict[str, str], Losses]  # of a model: image_id -> caption, and the losses


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
    UserError: no test image could be read, or predictions.csv cannot be written.
    """
    log.info("scoring the %s on the test images", "fine-tuned model" if ckpt_path else "model")
    loss, tuned = _test(model, datamodule, trainer, ckpt_path)
    metrics, base = {"test/loss": loss}, None
    if zero_shot:
        log.info("scoring the base model on them")
        with model.captioner.base_weights():
            metrics["zero_shot/test/loss"], base = _test(model, datamodule, trainer, None)
    metrics["data/unreadable_images"] = len(datamodule.all_unreadable())
    if not trainer.is_global_zero:
        return metrics
    images = [image for image in datamodule.splits["test"] if image.image_id in tuned[0]]
    metrics |= _write_scores(folder, scorer, images, tuned, base, {**(earlier or {}), **metrics})
    try:
        write_attention(model, images, tuned[0], folder / "attention.json", MAX_ATTENTION_MAPS)
    except OSError as error:
        log.warning("attention.json cannot be written (%s); free some space", error.strerror or error)
    return metrics


def _test(
    model: VitGpt2, datamodule: CaptionDataModule, trainer: pl.Trainer, ckpt_path: str | None
) -> tuple[float, Outputs]:
    trainer.test(model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True)
    return float(trainer.callback_metrics["test/loss"]), (model.test_captions, model.test_losses)


def loss_score(image_ids: Sequence[str], losses: Losses) -> dict[str, Score]:
    """Return the loss as a score of the images; nothing where it is not known of each."""
    if not image_ids or not losses.keys() >= set(image_ids):
        return {}
    return {"loss": token_mean(*np.array([losses[image_id] for image_id in image_ids], np.float64).T)}


def _score(scorer: CaptionScorer, images: Sequence[CaptionedImage], outputs: Outputs) -> Scores:
    ids, references = [image.image_id for image in images], [image.captions for image in images]
    captions, others = [outputs[0][name] for name in ids], loss_score(ids, outputs[1])
    if scorer.clip is not None:
        pixels = (load_image(image.path, image.box, image.span).permute(1, 2, 0).numpy() for image in images)
        try:
            others |= scorer.clip.score(pixels, captions, references)
        except UnreadableImage as error:
            log.warning("CLIPScore is skipped: %s", error)
    return scorer.score(ids, captions, references, others=others)


def _write_scores(
    folder: Path,
    scorer: CaptionScorer,
    images: Sequence[CaptionedImage],
    tuned: Outputs,
    base: Outputs | None,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    if not images:
        raise UserError("no test image could be read; expected at least one; see the reasons above")
    scores, base_scores = _score(scorer, images, tuned), base and _score(scorer, images, base)
    found: dict[str, Any] = scores.flat("test/")
    if base_scores:
        found |= base_scores.flat("zero_shot/test/") | scorer.gains(scores, base_scores).flat("test/")
    if scorer.cider_df:
        found["test/cider_d_document_frequencies"] = scorer.cider_df
    write_json(folder / "metrics.json", {**metrics, **found})  # first: the disk may be nearly full
    write_predictions(folder / "predictions.csv", images, tuned[0], scores, base and base[0], base_scores)
    return found


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
    columns: dict[str, Any] = {name: [getattr(image, name) for image in images] for name in ("image_id", "path")}
    for name in ("box", "span"):  # of subfigures and of images in tar files, which the report cuts out by them
        if any(getattr(image, name) for image in images):
            columns[name] = [" ".join(map(str, getattr(image, name) or ())) for image in images]
    columns["caption"] = [captions[image.image_id] for image in images]
    columns["zero_shot_caption"] = [(base_captions or {}).get(image.image_id, "") for image in images]
    for k in range(max(len(image.captions) for image in images)):
        columns[f"reference_{k + 1}"] = [image.captions[k] if k < len(image.captions) else "" for image in images]
    columns["license"] = [image.license for image in images]
    loss = scores.details.get("loss")
    names = [*PER_IMAGE, "loss"] if loss else PER_IMAGE
    columns |= {name: [row[name] for row in scores.per_image] for name in names}
    base = base_scores.per_image if base_scores else [{}] * len(images)
    columns |= {f"zero_shot_{name}": [row.get(name, "") for row in base] for name in names}
    if loss and loss.statistics is not None:
        columns["num_tokens"] = loss.statistics[:, 1].astype(int)
    text = pd.DataFrame(columns, dtype=object).to_csv(index=False, lineterminator="\n")
    # Lone surrogates, which JSON files may hold and UTF-8 cannot, are replaced.
    write_text(path, text.encode("utf-8", "replace").decode())


def write_attention(
    model: VitGpt2, images: Sequence[CaptionedImage], captions: Mapping[str, str], path: Path, most: int
) -> None:
    """Write attention.json: the maps of `captions` (by image_id) for a random sample of at most `most` images.

    Unreadable images are skipped; without a square grid of patches in the encoder there is no file.
    """
    images = [image for image in images if image.image_id in captions]
    transform = model.processor.image
    entries: list[dict[str, Any]] = []
    model.eval()
    for image in (images[index] for index in random_order(len(images))[:most]):
        try:
            pixels = load_image(image.path, image.box, image.span)  # uint8 (3,H,W)
        except UnreadableImage:
            continue  # already counted and logged by the loader of the test images
        with torch.no_grad():
            states = model.model.encoder(transform(pixels)[None].to(model.device)).last_hidden_state  # (1,P,D)
        region = visible_crop(transform, *pixels.shape[1:])
        with torch.autocast(states.device.type, torch.bfloat16, enabled=model.captioner.has_bf16_decoder):
            found = word_attention(model.model, model.processor, states, [captions[image.image_id]], region)
        if found is None:
            return
        entries.append(encode_attention(image.image_id, found[0]))
    with atomic_write(path) as file:
        json.dump(entries, file)


def rescore(predictions: Path, folder: Path, scorer: CaptionScorer) -> dict[str, float]:
    """Score a `predictions.csv` without a model and write its copy and metrics.json into `folder`.

    UserError: there is no such file, or it is not csv in UTF-8 with the columns needed.
    """
    try:
        rows = read_predictions(predictions)
        if not any(row.references for row in rows):
            raise ValueError("no row has a reference_1")
    except (OSError, ValueError, csv.Error) as error:
        expected = "expected a csv file in UTF-8 with image_id, caption, reference_1, ...; set another file"
        raise UserError(f"predictions={str(predictions)!r} cannot be read ({error}); {expected}") from error
    images = [
        CaptionedImage(row.image_id, row.path, row.references, row.image_id, row.box, row.license, span=row.span)
        for row in rows
    ]
    tuned = {row.image_id: row.caption for row in rows}, read_losses(rows)
    base = {row.image_id: row.zero_shot_caption or "" for row in rows}, read_losses(rows, "zero_shot_loss")
    has_base = any(base[0].values())  # some of the base's captions may be empty
    return _write_scores(folder, scorer, images, tuned, base if has_base else None, {})


def read_losses(rows: Sequence[Prediction], name: str = "loss") -> Losses:
    """Return the losses of the rows of a predictions.csv, those that have one."""
    return {
        row.image_id: (row.scores[name], int(row.scores["num_tokens"]))
        for row in rows
        if {name, "num_tokens"} <= row.scores.keys()
    }
