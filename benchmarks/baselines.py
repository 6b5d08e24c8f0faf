"""transformers' `Seq2SeqTrainer` and a loop like the original project's: a row per caption. B rows, T tokens."""

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, VisionEncoderDecoderModel

from benchmarks.common import synchronize
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import load_image
from src.datamodule.processor import Processor

Row = dict[str, Tensor]


def encode(image: CaptionedImage, processor: Processor) -> list[Tensor]:
    """Return the labels i64 (T) of each caption."""
    return [torch.tensor([*processor.encode_caption(text), processor.eos_id]) for text in image.captions]


def caption_rows(images: Sequence[CaptionedImage], processor: Processor) -> list[Row]:
    """Return one row per caption: pixel_values f32 (3,H,W), one tensor for an image's rows, and labels i64 (T)."""
    pixels = ((image, processor.image(load_image(image.path, image.box))) for image in images)
    return [{"pixel_values": one, "labels": labels} for image, one in pixels for labels in encode(image, processor)]


class LazyRows(torch.utils.data.Dataset[Row]):
    """The rows of `caption_rows`, their image read and processed for each row, as transformers' guides do it."""

    def __init__(self, images: Sequence[CaptionedImage], image_processor: Any, processor: Processor) -> None:
        self.images, self.image_processor = images, image_processor
        self.num_read, self.seconds = 0, 0.0
        self.rows = [(image.path, labels) for image in images for labels in encode(image, processor)]

    def __len__(self) -> int:
        return len(self.rows)

    def seconds_repeated(self) -> float:
        """Return the part of `seconds` that keeping all pixels in memory would have saved."""
        return self.seconds * max(0.0, 1 - len(self.images) / self.num_read) if self.num_read else 0.0

    def __getitem__(self, index: int) -> Row:
        path, labels = self.rows[index]
        start = time.perf_counter()
        with Image.open(path) as image:
            pixels = self.image_processor(image.convert("RGB"), return_tensors="pt").pixel_values[0]
        self.num_read, self.seconds = self.num_read + 1, self.seconds + time.perf_counter() - start
        return {"pixel_values": pixels, "labels": labels}


def collate_rows(rows: Sequence[Row], device: str = "cpu") -> Row:
    """Stack pixels (B,3,H,W) and pad labels (B,T) with -100, on a device."""
    labels = torch.nn.utils.rnn.pad_sequence([row["labels"] for row in rows], True, -100)
    pixels = torch.stack([row["pixel_values"] for row in rows])
    return {"pixel_values": pixels.to(device), "labels": labels.to(device)}


class SilentTrainer(Seq2SeqTrainer):
    """A Seq2SeqTrainer that saves nothing and prints nothing."""

    def __init__(
        self, model: Any, rows: Any, callbacks: Sequence[TrainerCallback], collate: Any = collate_rows, **settings: Any
    ) -> None:
        folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        arguments = Seq2SeqTrainingArguments(
            folder.name, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
            remove_unused_columns=False, use_cpu=not torch.cuda.is_available(), **settings,
        )  # fmt: skip
        super().__init__(model, arguments, data_collator=collate, train_dataset=rows, callbacks=list(callbacks))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        self.state.log_history.append(logs)


class StartClock(TrainerCallback):
    """Take the time after the first step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            synchronize()
            self.start = time.perf_counter()


def time_seq2seq(model: VisionEncoderDecoderModel, rows: list[Row], steps: int, **settings: Any) -> float:
    """Return captions per second of `Seq2SeqTrainer`: the rows, collated once, are every step; the first warms up."""
    clock, batches = StartClock(), [collate_rows(rows)] * (steps + 1)
    size = {"per_device_train_batch_size": 1, "num_train_epochs": 1, "learning_rate": 5e-5}
    trainer = SilentTrainer(model, batches, [clock], lambda batch: batch[0], **size, **settings)
    trainer.train()
    synchronize()
    return len(rows) * steps / (time.perf_counter() - clock.start)


def time_original_loop(model: VisionEncoderDecoderModel, rows: list[Row], processor: Processor) -> float:
    """Return captions per second of one step that, like the original, also generates with 4 beams."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=5e-5)
    model.train()
    start, batch = time.perf_counter(), collate_rows(rows, str(model.device))
    optimizer.zero_grad()
    model(**batch).loss.backward()
    optimizer.step()
    ids = {"decoder_start_token_id": processor.start_id, "eos_token_id": processor.eos_id}
    with torch.no_grad():
        model.generate(batch["pixel_values"], max_length=16, num_beams=4, pad_token_id=processor.pad_id, **ids)
    return len(rows) / (time.perf_counter() - start)


def losses_in_order(model: VisionEncoderDecoderModel, batches: Sequence[list[Row]], lr: float) -> list[float]:
    """Return the losses of AdamW steps over given batches, through transformers' own loss in fp32."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, losses = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0), []
    for rows in batches:
        loss = model(**collate_rows(rows)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses
