"""The data module of captioned shards; `stream_loader.py` reads them."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow, write_skipped
from src.datamodule.readers.shards import Shard, index_shards, read_images
from src.datamodule.stream_loader import StreamLoader, import_webdataset
from src.datamodule.splits import SPLITS as PARTS
from src.datamodule.splits import split_table
from src.datamodule.stream_plan import StreamPlan
from src.utils.errors import UserError
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)


class ShardImages(Sequence[CaptionedImage]):
    """The samples of shards as rows of a table, read from the shards when they are asked for."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def __iter__(self) -> Iterator[CaptionedImage]:
        for shard in self.shards:
            yield from read_images(shard)

    @overload
    def __getitem__(self, index: int) -> CaptionedImage: ...
    @overload
    def __getitem__(self, index: slice) -> list[CaptionedImage]: ...
    def __getitem__(self, index: int | slice) -> CaptionedImage | list[CaptionedImage]:
        return list(self)[index]


class WebDatasetDataModule(CaptionDataModule):
    """Shards in img2dataset's layout as train, val and test batches.

    data_dir: folder with the shards. With subfolders train/, val/ and test/ these are the parts; otherwise
        its shards are parted by `split_ratios`, a shard at a time.
    train_shards, val_shards, test_shards: patterns within `data_dir` ("train-*.tar") instead; all or none.
    readers: shards that each process reads at the same time; part of the order.
    shuffle_window: samples mixed together while training, held in memory undecoded.
    common: the arguments of `CaptionDataModule`; `num_samples` and `fold` do not go with a stream.

    Raises:
        UserError: settings that do not go with a stream.
    """

    cacheable = False  # no feature cache: it is for pictures that have files, and for sets that fit a disk

    def __init__(
        self,
        data_dir: str | Path,
        train_shards: str | None = None,
        val_shards: str | None = None,
        test_shards: str | None = None,
        readers: int = 1,
        shuffle_window: int = 256,
        **common: Any,
    ) -> None:
        super().__init__(lambda: CaptionTable([], [], 0), **common)
        self.data_dir = Path(data_dir).expanduser()
        for name, value in (("readers", readers), ("shuffle_window", shuffle_window)):
            if value < 1:
                raise UserError(f"datamodule.{name}={value}; expected 1 or more; set datamodule.{name}=1")
        for name in ("num_samples", "fold"):
            if getattr(self, name) is not None:
                raise UserError(
                    f"datamodule.{name}={getattr(self, name)}; expected null: a stream of shards is "
                    f"taken whole; set it to null and name fewer shards in datamodule.train_shards"
                )
        self.patterns = dict(zip(PARTS, (train_shards, val_shards, test_shards), strict=True))
        self.readers = readers
        self.shuffle_window = shuffle_window
        self.shards: dict[str, list[Shard]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Find, count and part the shards, once; the captions of val and test are read.

        Raises:
            UserError: webdataset is not installed, no shards, a broken shard, or too many samples without
                picture or caption.
        """
        if self.table is not None:
            return
        import_webdataset()
        shards = {part: index_shards(self.data_dir, paths) for part, paths in self._find().items()}
        everything = [shard for found in shards.values() for shard in found]
        skipped = [
            SkippedRow(0, shard.name, "no picture or no caption", "")
            for shard in everything
            for _ in range(shard.incomplete)
        ]
        samples = sum(shard.samples for shard in everything)
        # Shards may be few: parting them by name comes after counting, so that empty ones do not take part.
        self.shards = {part: [shard for shard in found if shard.samples] for part, found in shards.items()}
        table = CaptionTable([], skipped, samples + len(skipped))
        for part in PARTS:
            log.info("%s: %d shards, %d samples", part, len(self.shards[part]), _count(self.shards[part]))
        self._check(table)
        table.images = [image for part in PARTS[1:] for image in ShardImages(self.shards[part])]
        self.splits = {part: ShardImages(self.shards[part]) for part in PARTS}
        self.table = table

    def _find(self) -> dict[str, list[Path]]:
        """The shards of each part.

        Raises:
            UserError: no such folder, a part without shards, or patterns for some parts alone.
        """
        if not self.data_dir.is_dir():
            raise UserError(
                f"datamodule.data_dir={str(self.data_dir)!r} does not exist; expected a folder of .tar "
                "shards; set datamodule.data_dir=..."
            )
        patterns = {part: pattern for part, pattern in self.patterns.items() if pattern}
        if patterns and len(patterns) < len(PARTS):
            raise UserError(
                f"datamodule.{', '.join(f'{part}_shards' for part in patterns)} alone; expected patterns for "
                "train, val and test, or none; set all three"
            )
        if not patterns and all((self.data_dir / part).is_dir() for part in PARTS):
            patterns = {part: f"{part}/*.tar" for part in PARTS}
        if not patterns:
            return self._part(sorted(self.data_dir.glob("*.tar")))
        found = {part: sorted(self.data_dir.glob(pattern)) for part, pattern in patterns.items()}
        for part, pattern in patterns.items():
            if not found[part]:
                raise UserError(
                    f"no shard in {self.data_dir} is named {pattern!r}; expected at least one for {part}; "
                    f"set datamodule.{part}_shards"
                )
        return found

    def _part(self, paths: list[Path]) -> dict[str, list[Path]]:
        """Shards by `split_ratios`, a shard at a time."""
        wanted = sum(ratio > 0 for ratio in self.split_ratios)
        if len(paths) < max(wanted, 1):
            raise UserError(
                f"{len(paths)} shards (*.tar) in {self.data_dir}; expected at least {max(wanted, 1)}, one "
                "for each part; make smaller shards, or set train_shards, val_shards and test_shards"
            )
        rows = [CaptionedImage(path.name, str(path), ("shard",), path.name) for path in paths]
        parts = split_table(CaptionTable(rows, [], len(rows)), self.split_ratios, self.split_seed)
        return {part: [Path(row.path) for row in found] for part, found in parts.items()}

    def _check(self, table: CaptionTable) -> None:
        if not self.shards["train"]:
            raise UserError(f"no sample in the train shards of {self.data_dir}; expected captioned pictures")
        if table.skipped_fraction > self.max_skipped:
            raise UserError(
                f"{table.skipped_fraction:.1%} of {table.rows_read:,} samples have no picture or no caption, "
                f"first in {table.skipped[0].image_id}; expected at most "
                f"datamodule.max_skipped={self.max_skipped}; mend the shards or raise that share"
            )

    def train_dataloader(self) -> StreamLoader:  # type: ignore[override]
        """The train shards, dealt anew and mixed in each epoch; each sample once over all processes."""
        loader = self._stream("train")
        loader.done = self._batches_done
        return loader

    def val_dataloader(self) -> StreamLoader:  # type: ignore[override]
        """The val shards in order; each sample once in all."""
        return self._stream("val")

    def test_dataloader(self) -> StreamLoader:  # type: ignore[override]
        """The test shards in order; each sample once in all."""
        return self._stream("test")

    def _stream(self, part: str) -> StreamLoader:
        self.setup()
        trainer = self.trainer
        rank = 0 if trainer is None else trainer.global_rank
        world_size = 1 if trainer is None else trainer.world_size
        train = part == "train"
        plan = StreamPlan(
            self.shards[part], self.batch_size, self.seed, train, self.readers, rank, world_size
        )
        return StreamLoader(
            plan,
            self._processor(),
            window=self.shuffle_window if train else 1,
            captions_per_image=self.captions_per_image,
            max_caption_tokens=self.max_caption_tokens,
            augment=self.augment,
            **self._loading(pixels=True),
        )

    def write_files(self, run_dir: str | Path) -> None:
        """Write `skipped.csv` and `splits.csv` (train by shard: `00000.tar/*`) into the run folder."""
        self.setup()
        assert self.table is not None
        with atomic_write(Path(run_dir) / "splits.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image_id", "split"])
            writer.writerows([f"{shard.name}/*", "train"] for shard in self.shards["train"])
            for part in PARTS[1:]:
                writer.writerows([image.image_id, part] for image in self.splits[part])
        write_skipped(self.table, Path(run_dir) / "skipped.csv")


def _count(shards: Sequence[Shard]) -> int:
    return sum(shard.samples for shard in shards)
