"""What a person would run otherwise: transformers' `Seq2SeqTrainer`, and the loop as it was published.

Both see the captions of the same images as rows of their own, padded to the longest caption of their batch.
"""

import itertools
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    VisionEncoderDecoderModel,
)

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import load_image
from src.datamodule.processor import Processor

Row = dict[str, Tensor]


def caption_rows(images: Sequence[CaptionedImage], words: Processor) -> list[Row]:
    """One row per caption: pixel_values f32 (3,H,W), shared among an image's rows, and labels i64."""
    rows = []
    for image in images:
        pixels = words.image(load_image(image.path, image.box))
        for caption in image.captions:
            labels = torch.tensor([*words.encode_caption(caption), words.eos_id])
            rows.append({"pixel_values": pixels, "labels": labels})
    return rows


class ReadRows(torch.utils.data.Dataset[Row]):
    """The rows of `caption_rows`, their picture read and prepared anew for each: the way of transformers' guides.

    images: what the captions belong to. processor: transformers' image processor of the checkpoint.
    taken: how many were read so far; seconds: what that took.
    """

    def __init__(self, images: Sequence[CaptionedImage], processor: Any, words: Processor) -> None:
        self.images, self.processor = images, processor
        self.taken, self.seconds = 0, 0.0
        self.rows = [
            (image.path, torch.tensor([*words.encode_caption(caption), words.eos_id]))
            for image in images
            for caption in image.captions
        ]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def seconds_again(self) -> float:
        """Of `seconds`, what would not have been spent, had each picture been kept in memory once prepared."""
        return self.seconds * max(0.0, 1 - len(self.images) / self.taken) if self.taken else 0.0

    def __getitem__(self, index: int) -> Row:
        path, labels = self.rows[index]
        began = time.perf_counter()
        with Image.open(path) as picture:
            pixels = self.processor(picture.convert("RGB"), return_tensors="pt").pixel_values[0]
        self.taken, self.seconds = self.taken + 1, self.seconds + time.perf_counter() - began
        return {"pixel_values": pixels, "labels": labels}


def collate_rows(rows: Sequence[Row]) -> Row:
    """Pixels (n,3,H,W) and labels (n,T), -100 behind the end."""
    labels = torch.nn.utils.rnn.pad_sequence([row["labels"] for row in rows], True, -100)
    return {"pixel_values": torch.stack([row["pixel_values"] for row in rows]), "labels": labels}


class _Clock(TrainerCallback):
    """When each step began and ended."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.end = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.starts.append(time.perf_counter())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.end = time.perf_counter()


def train_seq2seq(
    model: VisionEncoderDecoderModel, rows: list[Row], batch_size: int, steps: int, bf16: bool, skip: int = 1
) -> tuple[float, list[float]]:
    """Captions per second of `Seq2SeqTrainer` behind the first `skip` steps, and the loss of each step."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = Seq2SeqTrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch_size, max_steps=skip + steps, bf16=bf16,
            learning_rate=5e-5, logging_steps=1, report_to=[], save_strategy="no", disable_tqdm=True,
            use_cpu=True, dataloader_drop_last=True, remove_unused_columns=False,
        )  # fmt: skip
        trainer = Seq2SeqTrainer(
            model, settings, data_collator=collate_rows, train_dataset=rows, callbacks=[clock]
        )
        trainer.log = lambda logs, *_, **__: trainer.state.log_history.append(logs)  # nothing on the screen
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return batch_size * steps / (clock.end - clock.starts[skip]), losses


def train_in_order(model: VisionEncoderDecoderModel, rows: list[Row], sizes: Sequence[int]) -> list[float]:
    """Losses of `Seq2SeqTrainer` in fp32, one step for each of the `sizes`, taking the rows as they come."""
    ends = list(itertools.accumulate(sizes))
    batches = [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        settings = Seq2SeqTrainingArguments(
            output_dir=folder, per_device_train_batch_size=1, max_steps=len(batches), learning_rate=5e-5,
            lr_scheduler_type="constant", logging_steps=1, report_to=[], save_strategy="no",
            disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
        )  # fmt: skip
        trainer = Seq2SeqTrainer(
            model, settings, data_collator=lambda found: collate_rows(found[0]), train_dataset=batches
        )
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(batches)
        trainer.log = lambda logs, *_, **__: trainer.state.log_history.append(logs)
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train_published(
    model: VisionEncoderDecoderModel, rows: list[Row], words: Processor, batch_size: int, steps: int
) -> tuple[float, list[float]]:
    """Captions per second of a loop that also searches for its captions, with 4 beams, in each step."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=5e-5)
    model.train()
    losses, start = [], time.perf_counter()
    for step in range(steps):
        batch = collate_rows(rows[step * batch_size : (step + 1) * batch_size])
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.generate(
                batch["pixel_values"], max_length=16, num_beams=4, decoder_start_token_id=words.start_id,
                eos_token_id=words.eos_id, pad_token_id=words.pad_id,
            )  # fmt: skip
        losses.append(float(loss.detach()))
    return batch_size * steps / (time.perf_counter() - start), losses


@torch.no_grad()
def start_loss(model: VisionEncoderDecoderModel, rows: list[Row], bf16: bool) -> float:
    """Nats per token of the rows, without dropout, through transformers' own loss."""
    model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return float(model(**collate_rows(rows)).loss)
