"""Length-grouped distributed batches, and a threaded loader of them that can resume in the middle of an epoch."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

from src.datamodule.caption_dataset import CaptionDataset, seeded_rng
from src.datamodule.collate import CaptionBatch, collate
from src.datamodule.processor import Processor
from src.utils.logging import get_logger

log = get_logger(__name__)

BUCKET = 8  # global batches sorted by length together: more would make the batches of an epoch too alike
MAX_WORKERS = 8

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True)
class LengthGroupedSampler:
    """Which image is in which batch of an epoch of one process.

    All processes form the same global batches of `batch_size x world_size` images, and each takes its rank slice.
    """

    lengths: Sequence[int]  # packed tokens of each image; images of similar length share a batch
    batch_size: int
    seed: int = 0
    shuffle: bool = True  # False keeps the order of the table (val, test)
    equal_steps: bool = True  # of all processes (training: gradients are reduced in each step)
    rank: int = 0
    world_size: int = 1

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the indices of each batch of this process; over all processes each image occurs once.

        `equal_steps` divides evenly, 17 images at a batch of 16 as 9 + 8; fewer images than processes repeat.
        """
        order = list(range(len(self.lengths)))
        size = self.batch_size * self.world_size
        rng = seeded_rng(self.seed, epoch, "", "order")
        if self.shuffle:
            rng.shuffle(order)
            buckets = [order[start : start + size * BUCKET] for start in range(0, len(order), size * BUCKET)]
            order = [index for bucket in buckets for index in sorted(bucket, key=self.lengths.__getitem__)]
        ends = [*range(0, len(order), size), len(order)]
        if self.equal_steps:
            while 0 < len(order) < self.world_size:
                order += order[: self.world_size - len(order)]
            steps = min(-(-len(order) // size), len(order) // self.world_size)  # 5 images on 4 processes: 1 step
            ends = [len(order) * step // steps for step in range(steps + 1)] if steps else []
        batches = [order[start:end] for start, end in itertools.pairwise(ends)]
        if self.shuffle:
            rng.shuffle(batches)
        slices = [batch[self.rank :: self.world_size] for batch in batches]
        return [rank_slice for rank_slice in slices if rank_slice]


@dataclass(eq=False, repr=False)
class CaptionLoader:
    """Batches of a dataset in the sampler's order, read ahead in threads, with a saved position.

    Threads and not processes: decoding and resizing release Python's lock, and nothing is copied between processes.
    """

    items: CaptionDataset
    order: LengthGroupedSampler
    processor: Processor
    num_workers: int = 0  # threads; 0 loads each batch when it is requested
    pin_memory: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)  # image_id -> reason; each is logged once
    # Returns the batches of the epoch whose step is finished, fewer than were handed out when a step was interrupted.
    num_finished: Callable[[], int | None] = lambda: None
    epoch: int = 0
    _start: int = 0  # batch at which the next iteration begins
    _handed_out: int = 0

    def __len__(self) -> int:
        return len(self.order.batches(0))

    def __iter__(self) -> Iterator[CaptionBatch]:
        """Iterate over the batches of the epoch, from the loaded position on; empty ones are skipped."""
        # A generator starts at the first batch: Lightning makes the iterator before it sets the epoch.
        self._handed_out, self._start = self._start, 0
        batches = self.order.batches(self.epoch)[self._handed_out :]
        keys = [[(index, self.epoch) for index in batch] for batch in batches]
        for batch in read_ahead(self._load_batch, keys, self.num_workers):
            record_unreadable(batch.unreadable, self.unreadable)
            self._handed_out += 1
            if len(batch):
                yield batch

    def _load_batch(self, keys: Sequence[tuple[int, int]]) -> CaptionBatch:
        processor, items = self.processor, [self.items[key] for key in keys]
        batch = collate(items, processor.image, processor.start_id, processor.eos_id, processor.pad_id)
        return batch.pin_memory() if self.pin_memory else batch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; a position in another epoch is dropped."""
        if epoch != self.epoch:
            self.epoch, self._handed_out, self._start = epoch, 0, 0

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Lightning calls `batch_sampler.sampler.set_epoch`; an attribute `sampler` alone it would replace."""
        return SimpleNamespace(sampler=self)

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, finished batches and what their order depends on; plain numbers and text."""
        finished, order = self.num_finished(), self.order
        size = order.batch_size * order.world_size
        return {
            "epoch": self.epoch,
            "batches": self._handed_out if finished is None else min(finished, self._handed_out),
            "order": [len(order.lengths), int(sum(order.lengths)), size, order.seed, int(order.shuffle)],
            "unreadable": dict(self.unreadable),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the position of `state_dict`; with other data or batches the epoch starts at its first batch."""
        self.unreadable.update(state.get("unreadable", {}))
        if state.get("order") == self.state_dict()["order"]:
            self.epoch, self._start, self._handed_out = state["epoch"], state["batches"], state["batches"]
        else:
            log.warning(
                "the checkpoint was written with another order of images (data, batch size, seed or number of "
                "processes changed); this epoch starts at the first batch of the new order"
            )


def record_unreadable(found: dict[str, str], unreadable: dict[str, str]) -> None:
    """Add `found` (image_id -> reason) to `unreadable`, and log each image once."""
    for image_id, reason in found.items():
        if image_id not in unreadable:
            unreadable[image_id] = reason
            log.warning("unreadable image skipped or replaced: %s", reason)


def read_ahead(load: Callable[[Key], Result], keys: Iterable[Key], workers: int) -> Iterator[Result]:
    """Yield `load` of every key in order, loaded up to two keys a thread ahead; its errors are raised here."""
    if not workers:
        yield from map(load, keys)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="loader") as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for key in keys:
                ahead.append(pool.submit(load, key))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def choose_workers(num_workers: int | None, pixels: bool, processes: int = 1) -> int:
    """Return the threads of a loader: as set; else 0 for cached features, or this process's fraction of the cores."""
    if num_workers is not None or not pixels:
        return max(num_workers or 0, 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // max(processes, 1), MAX_WORKERS))
