"""What the model says while it learns: scores over a bounded share of validation, and a few pictures to look at."""

from typing import Any, Protocol

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import UnreadableImage, load_image
from src.models.vit_gpt2 import VitGpt2
from src.utils.logging import get_logger

log = get_logger(__name__)
LOGGED = ("cider_d", "bleu_4", "distinct_fraction")


class Scorer(Protocol):
    """What `CaptionSamples` asks of the metrics."""

    def score(self, image_ids: Any, candidates: Any, references: Any, intervals: bool = True) -> Any:
        """Scores with a `corpus` of names and values."""


class CaptionSamples(Callback):
    """Logs `val/cider_d`, `val/bleu_4` and `val/distinct_fraction`, which checkpoint and early stopping may monitor.

    max_images: images of validation that are captioned, the first ones, the same each time. every_n_epochs: epochs
    between. pictures: how many of them are drawn into TensorBoard with caption and references.
    scorer: set by the task before fit; without one only pictures are drawn.
    """

    def __init__(self, max_images: int = 200, every_n_epochs: int = 1, pictures: int = 4) -> None:
        self.max_images, self.every_n_epochs, self.pictures = max_images, every_n_epochs, pictures
        self.scorer: Scorer | None = None
        self._found: dict[str, tuple[str, list[str]]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch's captions."""
        self._found = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Caption the images of the batch while there are fewer than `max_images`."""
        share = -(-self.max_images // trainer.world_size)
        if self._rests(trainer) or len(self._found) >= share or not len(batch):
            return
        assert isinstance(pl_module, VitGpt2)
        with trainer.precision_plugin.val_step_context():
            captions = pl_module.generate(batch)
        self._found |= {
            name: (caption, references)
            for name, caption, references in zip(batch.image_ids, captions, batch.references, strict=True)
        }

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score and draw."""
        if self._rests(trainer):
            return
        found = self._everywhere(trainer)
        if not found:
            return
        captions, references = zip(*found.values(), strict=True)
        if self.scorer is not None:
            corpus = self.scorer.score(list(found), list(captions), list(references), intervals=False).corpus
            for name in LOGGED:
                if name in corpus:
                    pl_module.log(f"val/{name}", corpus[name], prog_bar=name == "cider_d")
        if trainer.is_global_zero:
            self._draw(trainer, found)

    def _rests(self, trainer: Trainer) -> bool:
        return trainer.sanity_checking or (trainer.current_epoch + 1) % self.every_n_epochs != 0

    def _everywhere(self, trainer: Trainer) -> dict[str, tuple[str, list[str]]]:
        """Captions of all ranks, in one order."""
        if trainer.world_size == 1:
            return self._found
        parts: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(parts, self._found)
        return dict(sorted(item for part in parts for item in part.items()))

    def _draw(self, trainer: Trainer, found: dict[str, tuple[str, list[str]]]) -> None:
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        images: dict[str, CaptionedImage] = {
            image.image_id: image
            for image in trainer.datamodule.splits["val"]  # type: ignore[attr-defined]
            if image.image_id in found
        }
        if not writers:
            return
        for name in list(images)[: self.pictures]:
            caption, references = found[name]
            try:
                picture = load_image(images[name].path, images[name].box, images[name].span)
            except UnreadableImage as error:
                log.warning("%s", error)
                continue
            text = "\n\n".join([f"**{caption}**", *references])
            for writer in writers:
                writer.add_image(f"val/{name}", picture, trainer.current_epoch)
                writer.add_text(f"val/{name}", text, trainer.current_epoch)
