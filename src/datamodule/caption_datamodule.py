"""Steps 1 to 4 of the data path in one place: what Flickr, MedICaT and the drawn sets have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from src.datamodule.caption_dataset import CaptionDataset, CaptionTokens, FeatureStore
from src.datamodule.caption_table import (
    CaptionedImage,
    CaptionTable,
    SkippedRow,
    split_table,
    write_skipped,
    write_splits,
)
from src.datamodule.images.decode import check_images as find_unreadable
from src.datamodule.loader import BatchLoader, TrainLoader, choose_pinning, choose_workers
from src.datamodule.processor import Processor
from src.datamodule.sampler import LengthGroupedSampler
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)


class CaptionDataModule(LightningDataModule):
    """A captions file as train, val and test batches; subclasses say how the file is read.

    Order of use: `setup()` (reads, checks, splits; no model needed), `connect(processor)`, then the
    loaders. `features`, when set, takes the place of pixels in all loaders made afterwards.

    data_dir: folder of captions file and pictures.
    num_samples: image-caption pairs to use, in file order; None for all.
    batch_size: images per step and process.
    captions_per_image: captions of an image drawn anew each epoch; None packs all of them.
    num_workers, pin_memory: None chooses by cores, cache and device.
    split_ratios, split_seed, fold, num_folds: see `split_table`; independent of the run's seed.
    max_skipped: share of unusable rows, 0 to 1, above which setup stops.
    max_caption_tokens: longer captions are cut; None leaves the decoder's limit.
    check_images: look at every picture's header in `setup`; unreadable ones count as skipped.
    augment: random crops in training, where pixels and not cached features are read.
    broken: pictures that could not be read though their header was sound, image_id -> reason.
    captions_cut: how many captions of a part were longer than `max_caption_tokens`.
    seed: of the order of training images and of what is drawn in an epoch.
    """

    generation_length: int | None = None
    cacheable = True  # whether the frozen backbone's output can be kept for the images of `splits`

    def __init__(
        self,
        data_dir: str | Path,
        num_samples: int | None = None,
        batch_size: int = 16,
        captions_per_image: int | None = None,
        num_workers: int | None = None,
        pin_memory: bool | None = None,
        split_ratios: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        fold: int | None = None,
        num_folds: int = 5,
        max_skipped: float = 0.01,
        max_caption_tokens: int | None = None,
        check_images: bool = True,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        numbers = {
            "batch_size": batch_size,
            "captions_per_image": captions_per_image,
            "max_caption_tokens": max_caption_tokens,
        }
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise UserError(
                    f"datamodule.{name}={value}; expected 1 or more; set datamodule.{name} to a whole number"
                )
        self.data_dir = Path(data_dir)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.captions_per_image = captions_per_image
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.split_ratios = split_ratios
        self.split_seed = split_seed
        self.fold = fold
        self.num_folds = num_folds
        self.max_skipped = max_skipped
        self.max_caption_tokens = max_caption_tokens
        self.check_images = check_images
        self.augment = augment
        self.seed = seed
        self.table: CaptionTable | None = None
        self.splits: Mapping[str, Sequence[CaptionedImage]] = {}
        self.features: FeatureStore | None = None
        self.broken: dict[str, str] = {}
        self.captions_cut: dict[str, int] = {}
        self._preprocessing: Processor | None = None

    def read_table(self) -> CaptionTable:
        """The whole captions file as a table; every subclass has its own."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split, once: later calls change nothing.

        Raises:
            UserError: as `read_table`, `CaptionTable.check` and `split_table`.
        """
        if self.table is not None:
            return
        table = self.read_table().take(self.num_samples)
        if self.check_images:
            table = _without_unreadable(table)
        log.info(table.summary())
        table.check(self.max_skipped)
        self.splits = split_table(table, self.split_ratios, self.split_seed, self.fold, self.num_folds)
        self.table = table

    def connect(self, preprocessing: Processor) -> None:
        """Tell the loaders to come what the checkpoint wants of pixels and tokens."""
        self._preprocessing = preprocessing

    def pixel_loader(self, images: Sequence[CaptionedImage], view: int = 0) -> BatchLoader:
        """Batches of `images` in the order given, with pixels and without captions: what fills a cache.

        view: 0 the picture as it is, 1 and more its augmented views. Broken pictures are noted in `broken`
        and left out.
        """
        words = self._words()
        dataset = CaptionDataset(images, words.image, view=view, seed=self.seed)
        plan = LengthGroupedSampler([1] * len(images), self.batch_size, shuffle=False, equal_steps=False)
        return BatchLoader(dataset, plan, words, **self._reading(pixels=True))

    def train_dataloader(self) -> TrainLoader:
        """Batches of the train part: shuffled by seed and epoch, each image once over all processes."""
        overfit = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        loader = TrainLoader(**self._settings("train", shuffle=not overfit))
        loader.done = self._batches_done
        return loader

    def val_dataloader(self) -> BatchLoader:
        """Batches of the val part in table order; each image once in all, none repeated."""
        return BatchLoader(**self._settings("val", shuffle=False))

    def test_dataloader(self) -> BatchLoader:
        """Batches of the test part in table order; each image once in all, none repeated."""
        return BatchLoader(**self._settings("test", shuffle=False))

    def write_files(self, run_dir: str | Path) -> None:
        """Write `splits.csv` and `skipped.csv` into the run folder."""
        self.setup()
        assert self.table is not None
        write_splits(self.splits, Path(run_dir) / "splits.csv")
        write_skipped(self.table, Path(run_dir) / "skipped.csv")

    def broken_everywhere(self) -> dict[str, str]:
        """`broken` of all processes; every one of them has to call it."""
        if self.trainer is None or self.trainer.world_size == 1:
            return self.broken
        parts: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, self.broken)
        return {name: reason for part in parts for name, reason in part.items()}

    def _settings(self, part: str, shuffle: bool) -> dict[str, Any]:
        """The arguments of a part's loader."""
        self.setup()
        words, images = self._words(), self.splits[part]
        tokens = CaptionTokens(images, words, self.max_caption_tokens)
        self._tell_cut(part, tokens)
        dataset = CaptionDataset(
            images,
            words.image,
            tokens,
            train=part == "train",
            seed=self.seed,
            captions_per_image=self.captions_per_image,
            augment=self.augment,
            features=self.features,
        )
        rank, world_size = self._place()
        plan = LengthGroupedSampler(
            [tokens.packed_length(index) for index in range(len(images))],
            self.batch_size,
            self.seed,
            shuffle=shuffle,
            equal_steps=part == "train",
            rank=rank,
            world_size=world_size,
        )
        reading = self._reading(pixels=self.features is None)
        return {"dataset": dataset, "plan": plan, "preprocessing": words, **reading}

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _reading(self, pixels: bool) -> dict[str, Any]:
        trainer = self.trainer
        processes = 1 if trainer is None else trainer.world_size // max(trainer.num_nodes, 1)
        return {
            "num_workers": choose_workers(self.num_workers, pixels, processes),
            "pin_memory": choose_pinning(self.pin_memory),
            "broken": self.broken,
        }

    def _words(self) -> Processor:
        if self._preprocessing is None:
            raise RuntimeError("connect(processor) comes before the loaders")
        return self._preprocessing

    def _tell_cut(self, part: str, tokens: CaptionTokens) -> None:
        """Note, and say once, which share of a part's captions is longer than the model is shown."""
        if part not in self.captions_cut and tokens.num_cut:
            log.info(
                "%s: %d of %d captions (%.1f%%) are longer than %d tokens and are cut",
                part,
                tokens.num_cut,
                tokens.num_captions,
                100 * tokens.num_cut / tokens.num_captions,
                tokens.limit,
            )
        self.captions_cut[part] = tokens.num_cut

    def _batches_done(self) -> int | None:
        """Batches of this epoch whose step is finished, as Lightning counts them."""
        if self.trainer is None:
            return None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.processed


def _without_unreadable(table: CaptionTable) -> CaptionTable:
    """The table without pictures whose header is unreadable; each of their captions counts as skipped."""
    reasons = find_unreadable(table.images)
    if not reasons:
        return table
    skipped = [
        SkippedRow(0, image.image_id, "unreadable image", reasons[image.image_id])
        for image in table.images
        for _ in image.captions
        if image.image_id in reasons
    ]
    images = [image for image in table.images if image.image_id not in reasons]
    return replace(table, images=images, skipped=[*table.skipped, *skipped])
