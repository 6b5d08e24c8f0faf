"""Caption validation images during training: log their scores, and show a few of them in TensorBoard."""

import textwrap
from typing import Any

import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from src.datamodule.images.decode import UnreadableImage, load_image
from src.metrics.scorer import CaptionScorer
from src.models.vit_gpt2 import VitGpt2
from src.utils.logging import get_logger, visible

log = get_logger(__name__)
LOGGED = ("cider_d", "bleu_4", "distinct_fraction")


class CaptionSamples(Callback):
    """Log `val/cider_d`, `val/bleu_4` and `val/distinct_fraction`, which checkpoint and early stopping may monitor.

    max_images: images of validation that are captioned: the first ones, the same each time. every_n_epochs: epochs
    between. num_shown: how many of them TensorBoard shows with caption and first reference.
    min_distinct_fraction: of different captions among all, below which a warning is logged, and training ends where
    stop_on_collapse is set.
    """

    def __init__(
        self,
        max_images: int = 200,
        every_n_epochs: int = 1,
        num_shown: int = 4,
        min_distinct_fraction: float = 0.0,
        stop_on_collapse: bool = False,
    ) -> None:
        self.max_images, self.every_n_epochs, self.num_shown = max_images, every_n_epochs, num_shown
        self.min_distinct_fraction, self.stop_on_collapse = min_distinct_fraction, stop_on_collapse
        self.scorer = CaptionScorer(bootstrap_samples=0)
        self._found: dict[str, tuple[str, list[str]]] = {}  # image_id -> caption and references

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._found = {}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Caption the images of the batch while there are fewer than `max_images`."""
        if self._is_due(trainer) and len(batch) and len(self._found) < self.max_images / trainer.world_size:
            assert isinstance(pl_module, VitGpt2)
            with trainer.precision_plugin.val_step_context():
                captions = pl_module.generate(batch)
            found = zip(captions, batch.references, strict=True)
            self._found |= dict(zip(batch.image_ids, found, strict=True))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores and show images."""
        if not self._is_due(trainer):
            return
        found = self._found
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, found)
            found = dict(sorted(item for one in gathered for item in one.items()))
        if found:
            captions, references = zip(*found.values(), strict=True)
            corpus = self.scorer.score(list(found), list(captions), list(references), intervals=False).corpus
            for name in LOGGED:
                pl_module.log(f"val/{name}", corpus[name], prog_bar=name == "cider_d")
            if corpus["distinct_fraction"] < self.min_distinct_fraction:
                trainer.should_stop |= self.stop_on_collapse
                log.warning(
                    f"epoch {trainer.current_epoch}: {len(set(captions))} different captions for {len(found)} images: "
                    "they say little about the image; lower model.optimizer.lr, or train more blocks "
                    "(model.num_layers_to_train=2), longer (trainer.max_epochs) or on more images"
                )
            if trainer.is_global_zero:
                self._show(trainer, found)

    def _is_due(self, trainer: Trainer) -> bool:
        return not trainer.sanity_checking and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _show(self, trainer: Trainer, found: dict[str, tuple[str, list[str]]]) -> None:
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        images = [image for image in trainer.datamodule.splits["val"] if image.image_id in found]  # type: ignore[attr-defined]
        for image in images[: self.num_shown] if writers else ():
            try:
                pixels = load_image(image.path, image.box, image.span)
            except UnreadableImage as error:
                log.warning("%s", error)
                continue
            caption, references = found[image.image_id]
            figure = draw_caption(pixels, caption, references[0])
            for writer in writers:
                writer.add_figure(f"val_captions/{image.image_id}", figure, trainer.current_epoch)


def draw_caption(pixels: Tensor, caption: str, reference: str) -> Figure:
    """Draw an image, uint8 (3,H,W), above its caption and a reference."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(pixels.permute(1, 2, 0))
    axes.set_axis_off()
    lines = (f"fine-tuned: {caption}", f"reference: {reference}")
    text = "\n".join(textwrap.fill(visible(line), 60, max_lines=3) for line in lines)
    figure.supxlabel(text, x=0.02, ha="left", parse_math=False)
    return figure
