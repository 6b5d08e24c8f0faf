"""CaptionDataModule: any reader of captioned images as train, val and test batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule

from src.datamodule.caption_dataset import CaptionDataset, tokenize_captions
from src.datamodule.caption_table import CaptionedImage, CaptionTable
from src.datamodule.duplicates import find_duplicates, group_duplicates
from src.datamodule.feature_store import ShardedFeatures
from src.datamodule.images.decode import check_images as find_unreadable
from src.datamodule.loader import CaptionLoader, LengthGroupedSampler, choose_workers
from src.datamodule.processor import Processor
from src.datamodule.splits import split_table
from src.utils.files import write_csv
from src.utils.logging import get_logger

log = get_logger(__name__)

Reader = Callable[[], CaptionTable]


@dataclass(eq=False, repr=False)
class CaptionDataModule(LightningDataModule):
    """Train, val and test batches of the images and captions that `reader` returns.

    A new data set is one function that returns a `CaptionTable`:
    `CaptionDataModule(reader=lambda: CaptionTable(images, [], len(images)), processor=processor)`.
    configs/datamodule/base.yaml describes the other arguments.
    """

    reader: Reader  # called once, by `setup`
    processor: Processor | None = None  # of the checkpoint; needed by the loaders, not by `setup`
    _: KW_ONLY
    num_samples: int | None = None
    batch_size: int = 16
    captions_per_image: int | None = None
    num_workers: int | None = None
    pin_memory: bool | None = None
    split_ratios: Sequence[float] = (0.8, 0.1, 0.1)
    split_seed: int = 0
    fold: int | None = None
    num_folds: int = 5
    max_skipped: float = 0.01
    max_caption_tokens: int | None = None
    check_images: bool = True
    max_megapixels: int = 250
    check_duplicates: bool = True
    group_duplicates: bool = False
    augment: bool = False
    generation_length: int | None = None
    seed: int = 0

    table: CaptionTable | None = field(default=None, init=False)  # what was read; set by `setup`
    splits: Mapping[str, Sequence[CaptionedImage]] = field(default_factory=dict, init=False)  # in table order
    features: ShardedFeatures | None = field(default=None, init=False)  # replace pixels in later loaders
    unreadable: dict[str, str] = field(default_factory=dict, init=False)  # not decoded: image_id -> reason
    duplicates: dict[str, str] = field(default_factory=dict, init=False)  # of an image in another split: id -> its id
    _tokens: dict[str, list[list[np.ndarray]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the data, once; on a UserError, `table` has the skipped rows."""
        if self.splits:
            return
        self.table = self.reader()
        self.table.check(self.max_skipped)
        self.table = self.table.take(self.num_samples)
        if self.check_images:
            self.table = self.table.without_unreadable(
                find_unreadable(self.table.images, pixel_limit=self.max_megapixels * 1_000_000)
            )
        self.table.check(self.max_skipped)
        search = self.check_duplicates or self.group_duplicates
        pairs = find_duplicates(self.table.images, self.num_threads(pixels=True)) if search else []
        if self.group_duplicates:
            self.table = replace(self.table, images=group_duplicates(self.table.images, pairs))
        self.splits = split_table(self.table, self.split_ratios, self.split_seed, self.fold, self.num_folds)
        self._report_duplicates([(self.table.images[i].image_id, self.table.images[j].image_id) for i, j in pairs])

    def train_dataloader(self) -> CaptionLoader:
        """Return train batches: shuffled by seed and epoch, each image once over all processes."""
        overfit = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        return self._loader("train", shuffle=not overfit)

    def val_dataloader(self) -> CaptionLoader:
        """Return val batches in table order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> CaptionLoader:
        """Return test batches in table order."""
        return self._loader("test", shuffle=False)

    def _report_duplicates(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Log and keep the images of val and test that look like one of another split."""
        split_of = {image.image_id: name for name, images in self.splits.items() for image in images}
        for pair in pairs:
            for one, other in (pair, pair[::-1]):
                splits = split_of.get(one), split_of.get(other)
                if None not in splits and splits[0] != splits[1] and splits[0] != "train":
                    self.duplicates.setdefault(one, other)
        if self.duplicates:
            one, other = next(iter(self.duplicates.items()))
            log.warning(
                "%d images of val and test look like images of another split, such as %r and %r (all in splits.csv); "
                "datamodule.group_duplicates=true keeps them in one split", len(self.duplicates), one, other,
            )  # fmt: skip

    def write_files(self, run_dir: str | Path) -> None:
        """Write `skipped.csv` and `splits.csv` of what `setup` has read into the run folder."""
        if self.table is not None:
            skipped = map(astuple, self.table.skipped)
            write_csv(Path(run_dir) / "skipped.csv", ("line", "image_id", "reason", "detail"), skipped)
        if self.splits:
            pairs = [
                (image.image_id, name, self.duplicates.get(image.image_id, ""))
                for name, images in self.splits.items()
                for image in images
            ]
            write_csv(Path(run_dir) / "splits.csv", ("image_id", "split", "looks_like"), pairs)

    def num_images(self, split: str) -> int:
        """Return the images of a split."""
        return len(self.splits[split])

    def all_unreadable(self) -> dict[str, str]:
        """Return `unreadable` of all processes; a collective call."""
        if self.trainer is None or self.trainer.world_size == 1:
            return self.unreadable
        gathered: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(gathered, self.unreadable)
        return {name: reason for found in gathered for name, reason in found.items()}

    @property
    def pins_memory(self) -> bool:
        """Whether batches are copied to page-locked memory: as set, else for a run on CUDA."""
        cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return cuda if self.pin_memory is None else self.pin_memory

    def num_threads(self, pixels: bool) -> int:
        """Return the threads that read images (`pixels`) or cached features in this process."""
        trainer = self.trainer
        processes = 1 if trainer is None else trainer.world_size // max(trainer.num_nodes, 1)
        return choose_workers(self.num_workers, pixels, processes)

    def _loader(self, split: str, shuffle: bool) -> CaptionLoader:
        self.setup()
        if self.processor is None:
            raise RuntimeError("the loaders need a processor: CaptionDataModule(reader, processor=...)")
        images, tokens, train = self.splits[split], self._tokenize(split, self.processor), split == "train"
        dataset = CaptionDataset(
            images, self.processor.image, tokens, train, self.seed, self.captions_per_image, self.augment,
            self.features, self.max_megapixels,
        )  # fmt: skip
        trainer = self.trainer
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        lengths = [sum(len(ids) + 1 for ids in captions) for captions in tokens]
        sampler = LengthGroupedSampler(lengths, self.batch_size, self.seed, shuffle, train, rank, world_size)
        return CaptionLoader(
            dataset,
            sampler,
            self.processor,
            num_workers=self.num_threads(pixels=self.features is None),
            pin_memory=self.pins_memory,
            unreadable=self.unreadable,
            num_finished=self.num_finished if train else lambda: None,
        )

    def _tokenize(self, split: str, processor: Processor) -> list[list[np.ndarray]]:
        """Token ids of a split's captions, made once; log how many captions are cut."""
        if split not in self._tokens:
            limit = processor.token_limit(self.max_caption_tokens)
            self._tokens[split], num_cut = tokenize_captions(self.splits[split], processor, limit)
            if num_cut:
                count = sum(map(len, self._tokens[split]))
                log.info("%s: %d of %d captions exceed %d tokens and are cut", split, num_cut, count, limit)
        return self._tokens[split]

    def num_finished(self) -> int | None:
        """Return the batches of this epoch whose step is finished, as Lightning counts them."""
        progress: Any = self.trainer and self.trainer.fit_loop.epoch_loop.batch_progress.current
        return progress and progress.processed
