"""CaptionDataModule: any reader of captioned images as train, val and test batches."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from src.datamodule.caption_dataset import CaptionDataset, CaptionTokens, FeatureStore
from src.datamodule.caption_table import CaptionedImage, CaptionTable, write_skipped
from src.datamodule.images.decode import check_images as find_unreadable
from src.datamodule.loader import CaptionLoader, choose_pinning, choose_workers
from src.datamodule.processor import ImageTransform, Processor
from src.datamodule.sampler import LengthGroupedSampler
from src.datamodule.splits import split_table, write_splits
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

Reader = Callable[[], CaptionTable]


class CaptionDataModule(LightningDataModule):
    """Train, val and test batches of the images and captions that `reader` returns.

    A new data set is one function that returns a `CaptionTable`:
    `CaptionDataModule(reader=lambda: CaptionTable(images, [], len(images)), processor=processor)`.

    Args:
        reader: function without arguments that returns the table; called once, by `setup`.
        processor: tokenizer and image transform of the checkpoint; needed by the loaders, not by `setup`.
        num_samples: image-caption pairs to use, in file order; None for all.
        batch_size: images per step and process.
        captions_per_image: captions of an image sampled per epoch; None packs all of them.
        num_workers: threads that read and decode images ahead; None chooses by cores and cache.
        pin_memory: page-locked memory for the copy to a GPU; None chooses by the device.
        split_ratios, split_seed, fold, num_folds: see `split_table`; independent of the run's seed.
        max_skipped: fraction of unusable rows, 0 to 1, above which `setup` stops.
        max_caption_tokens: longer captions are cut; None leaves the decoder's limit.
        check_images: read the header of every image in `setup`; unreadable ones count as skipped.
        augment: random crops in training, where pixels and not cached features are read.
        generation_length: tokens to generate where `model.max_length` is not set.
        seed: of the order of training images and of what is sampled in an epoch.

    Attributes:
        table: what was read, after `num_samples` and without unreadable images; set by `setup`.
        splits: "train", "val", "test" -> images, in table order.
        features: cached features that replace pixels; set by `use_features`.
        unreadable: images with a sound header that could not be decoded, image_id -> reason.
        captions_cut: split -> number of captions longer than `max_caption_tokens`.

    Raises:
        UserError: a number below 1.
    """

    cacheable = True  # whether the frozen backbone's output can be cached for the images of `splits`

    def __init__(
        self,
        reader: Reader,
        processor: Processor | None = None,
        *,
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
        generation_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.reader, self.processor = reader, processor
        self.num_samples, self.batch_size, self.captions_per_image = (
            num_samples,
            batch_size,
            captions_per_image,
        )
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.split_ratios, self.split_seed, self.fold, self.num_folds = (
            split_ratios,
            split_seed,
            fold,
            num_folds,
        )
        self.max_skipped, self.check_images = max_skipped, check_images
        self.max_caption_tokens, self.generation_length = max_caption_tokens, generation_length
        self.augment, self.seed = augment, seed
        for name in ("batch_size", "captions_per_image", "max_caption_tokens", "generation_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(
                    f"datamodule.{name}={value}; expected 1 or more; set datamodule.{name} to a whole number"
                )
        self.table: CaptionTable | None = None
        self.splits: Mapping[str, Sequence[CaptionedImage]] = {}
        self.features: FeatureStore | None = None
        self.unreadable: dict[str, str] = {}
        self.captions_cut: dict[str, int] = {}
        self._tokens: dict[str, CaptionTokens] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the data, once: later calls change nothing.

        Where the data is refused, `table` still has the skipped rows for `write_files`.

        Raises:
            UserError: as `reader`, `CaptionTable.check` and `split_table`.
        """
        if self.splits:
            return
        self.table = self.reader()
        self.table.check(self.max_skipped)
        table = self.table = self.table.take(self.num_samples)
        if self.check_images:
            table = self.table = table.without_unreadable(find_unreadable(table.images))
        log.info(table.summary())
        table.check(self.max_skipped)
        self.splits = split_table(table, self.split_ratios, self.split_seed, self.fold, self.num_folds)

    def connect(self, processor: Processor) -> None:
        """Set the processor of later loaders."""
        self.processor = processor
        self._tokens.clear()

    def use_features(self, features: FeatureStore | None) -> None:
        """Make later loaders read cached features instead of pixels; None returns to pixels."""
        self.features = features

    def train_dataloader(self) -> CaptionLoader:
        """Return train batches: shuffled by seed and epoch, each image once over all processes."""
        overfit = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        return self._loader("train", shuffle=not overfit)

    def val_dataloader(self) -> CaptionLoader:
        """Return val batches in table order; over all processes each image once."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> CaptionLoader:
        """Return test batches in table order; over all processes each image once."""
        return self._loader("test", shuffle=False)

    def write_files(self, run_dir: str | Path) -> None:
        """Write `skipped.csv` and `splits.csv` of what `setup` has read into the run folder."""
        if self.table is not None:
            write_skipped(self.table, Path(run_dir) / "skipped.csv")
        if self.splits:
            write_splits(self.splits, Path(run_dir) / "splits.csv")

    def all_unreadable(self) -> dict[str, str]:
        """Return `unreadable` of all processes; a collective call."""
        if self.trainer is None or self.trainer.world_size == 1:
            return self.unreadable
        gathered: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(gathered, self.unreadable)
        return {name: reason for found in gathered for name, reason in found.items()}

    def _loader(self, split: str, shuffle: bool) -> CaptionLoader:
        self.setup()
        processor, images, tokens = self._processor(), self.splits[split], self._tokenize(split)
        dataset = CaptionDataset(
            images,
            processor.image,
            tokens,
            train=split == "train",
            seed=self.seed,
            captions_per_image=self.captions_per_image,
            augment=self.augment,
            features=self.features,
        )
        trainer = self.trainer
        sampler = LengthGroupedSampler(
            [tokens.packed_length(index) for index in range(len(images))],
            self.batch_size,
            self.seed,
            shuffle=shuffle,
            equal_steps=split == "train",
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        processes = 1 if trainer is None else trainer.world_size // max(trainer.num_nodes, 1)
        return CaptionLoader(
            dataset,
            sampler,
            processor,
            num_workers=choose_workers(self.num_workers, self.features is None, processes),
            pin_memory=choose_pinning(
                self.pin_memory, None if trainer is None else trainer.strategy.root_device
            ),
            unreadable=self.unreadable,
            num_finished=self._num_finished if split == "train" else None,
        )

    def _tokenize(self, split: str) -> CaptionTokens:
        """Token ids of a split's captions, made once; log the fraction of captions that is cut."""
        if split not in self._tokens:
            tokens = CaptionTokens(self.splits[split], self._processor(), self.max_caption_tokens)
            if tokens.num_cut:
                log.info(
                    "%s: %d of %d captions (%.1f%%) are longer than %d tokens and are cut",
                    split, tokens.num_cut, tokens.num_captions, 100 * tokens.num_cut / tokens.num_captions,
                    tokens.limit,
                )  # fmt: skip
            self._tokens[split], self.captions_cut[split] = tokens, tokens.num_cut
        return self._tokens[split]

    @property
    def image_transform(self) -> ImageTransform:
        """The image transform of the checkpoint."""
        return self._processor().image

    def _processor(self) -> Processor:
        if self.processor is None:
            raise RuntimeError("the loaders need a processor: CaptionDataModule(reader, processor=...)")
        return self.processor

    def _num_finished(self) -> int | None:
        """Batches of this epoch whose step is finished, as Lightning counts them."""
        if self.trainer is None:
            return None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress.processed
