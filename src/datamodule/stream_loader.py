"""Captioned shards as a stream: data sets that are too many files, or too far away, for a folder of pictures.

The webdataset library reads the shards; they are dealt to processes and readers here, so that each sample
comes once per epoch and a run goes on in mid-epoch.
"""

import itertools
import tarfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from src.datamodule.caption_dataset import MAX_REPLACEMENTS, CaptionItem, drawn, random_crop
from src.datamodule.collate import CaptionBatch
from src.datamodule.images.decode import UnreadableImage, decode_bytes
from src.datamodule.loader import Resumable, read_ahead
from src.datamodule.readers.shards import Sample, Shard, read_sample, wanted
from src.datamodule.stream_plan import Part, Stream, StreamPlan
from src.utils.errors import UserError


def read_shard(shard: Shard) -> Iterator[Sample]:
    """The samples of a shard in its order, through the webdataset library; no decoder of its own is used.

    Raises:
        UserError: the library is not installed, or the shard cannot be read or is not as it was counted.
    """
    wds = import_webdataset()
    found = 0
    try:
        # As an address: a bare name like "pipe:..." would be run as a command.
        pipeline = wds.DataPipeline(
            wds.SimpleShardList([Path(shard.path).as_uri()]), wds.tarfile_to_samples(select_files=wanted)
        )
        for fields in pipeline:
            sample = read_sample(shard.name, fields)
            if sample is not None:
                found += 1
                yield sample
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        reason = " ".join(str(error.args[0] if error.args else error).split())
        raise UserError(
            f"shard {shard.path}: {reason}; expected it as it was at the start; fetch it again and resume"
        ) from error
    if found != shard.samples:
        raise UserError(
            f"shard {shard.path}: {found} samples; expected {shard.samples} as counted at the start; "
            "let shards be while they are read, and resume"
        )


def import_webdataset() -> Any:
    """The webdataset library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import webdataset
    except ModuleNotFoundError as error:
        raise UserError(
            f"datamodule=webdataset needs the package {error.name}, which is not installed; expected the "
            "extra stream; poetry install --extras stream"
        ) from error
    return webdataset


class StreamLoader(Resumable):
    """Batches of samples from shards; see `StreamPlan` for the order.

    window: samples that are read and mixed together, within a shard; 1 keeps the order.
    captions_per_image, max_caption_tokens, augment: as in `CaptionDataModule`.
    """

    def __init__(
        self,
        plan: StreamPlan,
        *args: Any,
        window: int = 1,
        captions_per_image: int | None = None,
        max_caption_tokens: int | None = None,
        augment: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.plan = plan
        self.window = window
        self.captions_per_image = captions_per_image
        self.limit = self.preprocessing.token_limit(max_caption_tokens)
        self.augment = augment
        self._tokenizing = threading.Lock()

    def __len__(self) -> int:
        return sum(len(stream.sizes) for stream in self.plan.streams(self.epoch))

    def order(self) -> dict[str, int | str]:
        """Shards, batch size, seed, processes and readers: a stream cannot be dealt out otherwise midway."""
        plan = self.plan
        return {
            "shards": len(plan.shards),
            "samples": sum(shard.samples for shard in plan.shards),
            "batch_size": plan.batch_size,
            "seed": plan.seed,
            "processes": plan.world_size,
            "streams": plan.streams_here,
            "window": self.window,
        }

    def _made(self, start: int) -> Iterable[CaptionBatch]:
        streams = self.plan.streams(self.epoch)
        count = len(streams)
        # Of `start` batches each stream in turn has made one, the first streams one more.
        made = [max(0, -(-(start - place) // count)) for place in range(count)]
        raw = [self._batches(stream, skip) for stream, skip in zip(streams, made, strict=True)]
        turns = [raw[number % count] for number in range(start, len(self))]
        if not self.num_workers:
            return map(self._make, map(next, turns))
        return self._made_ahead(raw, turns)

    def _made_ahead(
        self, raw: Sequence[Iterator[list[Sample]]], turns: Iterable[Any]
    ) -> Iterator[CaptionBatch]:
        """One thread reads each stream, `num_workers` others decode."""
        with ExitStack() as stack:
            readers = {id(one): stack.enter_context(ThreadPoolExecutor(1, "reader")) for one in raw}
            read = (readers[id(one)].submit(next, one) for one in turns)
            yield from read_ahead(lambda future: self._make(future.result()), read, self.num_workers)

    def _batches(self, stream: Stream, skip: int) -> Iterator[list[Sample]]:
        samples = self._samples(stream, sum(stream.sizes[:skip]))
        for size in stream.sizes[skip:]:
            yield list(itertools.islice(samples, size))

    def _samples(self, stream: Stream, skip: int) -> Iterator[Sample]:
        """The samples of a stream from number `skip` on; shards before it are not opened."""
        for part in stream.parts * stream.repeats:
            if skip >= len(part):
                skip -= len(part)
                continue
            yield from itertools.islice(self._mixed(part), skip, None)
            skip = 0

    def _mixed(self, part: Part) -> Iterator[Sample]:
        samples = itertools.islice(read_shard(part.shard), part.first, None, part.step)
        for number in itertools.count():
            window = list(itertools.islice(samples, self.window))
            if not window:
                return
            if self.plan.train and self.window > 1:
                drawn(self.plan.seed, self.epoch, f"{part.shard.name}:{number}", "window").shuffle(window)
            yield from window

    def _make(self, samples: list[Sample]) -> CaptionBatch:
        broken: dict[str, str] = {}
        items = [item for sample in samples if (item := self._item(sample, samples, broken))]
        batch = self._collate(items)
        batch.broken = broken
        return batch

    def _item(self, sample: Sample, batch: list[Sample], broken: dict[str, str]) -> CaptionItem | None:
        """The item of a sample; of another one, in training, where its picture is broken, else None.

        Raises:
            UserError: 20 pictures in a row were broken.
        """
        readable = (one for one in self._stand_ins(sample, batch) if one.name not in broken)
        for one in itertools.islice(readable, MAX_REPLACEMENTS):
            try:
                pixels = self._pixels(one)
            except UnreadableImage as error:
                broken[one.name] = str(error)
                if not self.plan.train:
                    return None
                continue
            return CaptionItem(one.name, self._tokens(one), list(one.captions), pixels)
        raise UserError(
            f"{len(broken)} pictures in a row cannot be read, the last: {list(broken.values())[-1]}; "
            "fetch the shards again"
        )

    def _stand_ins(self, sample: Sample, batch: list[Sample]) -> Iterator[Sample]:
        """The sample itself, others of its batch by chance, then its shard from the start."""
        yield sample
        others = [one for one in batch if one is not sample]
        drawn(self.plan.seed, self.epoch, sample.name, "replacement").shuffle(others)
        yield from others
        yield from read_shard(next(one for one in self.plan.shards if sample.name.startswith(f"{one.name}/")))

    def _pixels(self, sample: Sample) -> Tensor:
        """uint8 (3,height,width)."""
        picture = decode_bytes(sample.data, sample.name)
        if self.plan.train and self.augment:
            picture = random_crop(picture, drawn(self.plan.seed, self.epoch, sample.name, "crop"))
        return self.preprocessing.image.resize_and_crop(picture)

    def _tokens(self, sample: Sample) -> list[list[int]]:
        captions = list(sample.captions)
        if self.plan.train and self.captions_per_image and self.captions_per_image < len(captions):
            chance = drawn(self.plan.seed, self.epoch, sample.name, "captions")
            chosen = sorted(chance.sample(range(len(captions)), self.captions_per_image))
            captions = [captions[k] for k in chosen]
        with self._tokenizing:
            return [ids[: self.limit] for ids in self.preprocessing.tokenize(captions)]
