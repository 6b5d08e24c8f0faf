"""Which image is in which batch of which process, and how the batches get here.

The order depends on seed and epoch alone. All processes draw the same global batches of
`batch_size x world_size` images, and each takes its share of every one: one process with a batch of 16 and
two with 8 see the same images in the same step.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor

from src.datamodule.caption_dataset import CaptionDataset, drawn
from src.datamodule.collate import CaptionBatch, collate
from src.datamodule.preprocessing import Preprocessing
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

BUCKET = 32  # global batches that are sorted by length together
MAX_WORKERS = 8

Key = tuple[int, int]  # (index, epoch)
Made = TypeVar("Made")


@dataclass(frozen=True)
class BatchPlan:
    """The images of every batch of an epoch for one process.

    lengths: packed tokens of each image, which batches are put together by.
    shuffle: False keeps the order of the table (val, test).
    equal_steps: every process makes the same number of steps (training: gradients meet in each step).
    """

    lengths: Sequence[int]
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    equal_steps: bool = True
    rank: int = 0
    world_size: int = 1

    def batches(self, epoch: int) -> list[list[int]]:
        """The indices of each batch of this process; over all processes each image occurs once.

        In training an epoch is parted evenly: 17 images at a global batch of 16 make 9 + 8 and not 16 + 1, so
        that no step learns from one image and every process has one in each step. Only where the whole set
        has fewer images than there are processes are images repeated.
        """
        order = list(range(len(self.lengths)))
        size = self.batch_size * self.world_size
        chance = drawn(self.seed, epoch, "", "order")
        if self.shuffle:
            chance.shuffle(order)
            order = self._by_length(order, size)
        if self.equal_steps:
            groups = self._evenly(order, size)
        else:
            groups = [order[start : start + size] for start in range(0, len(order), size)]
        if self.shuffle:
            chance.shuffle(groups)
        shares = [group[self.rank :: self.world_size] for group in groups]
        return [share for share in shares if share]

    def _evenly(self, order: list[int], size: int) -> list[list[int]]:
        if not order:
            return []
        if len(order) < self.world_size:
            order = [order[place % len(order)] for place in range(self.world_size)]
        steps = -(-len(order) // size)
        if len(order) // steps < self.world_size:  # at one image a process, 5 images on 4 processes
            steps = len(order) // self.world_size
        ends = [len(order) * step // steps for step in range(steps + 1)]
        return [order[start:end] for start, end in itertools.pairwise(ends)]

    def _by_length(self, order: list[int], size: int) -> list[int]:
        """Sort stretches of the shuffled order by length: neighbours are alike, chance still mixes."""
        stretch = size * BUCKET
        return [
            index
            for start in range(0, len(order), stretch)
            for index in sorted(order[start : start + stretch], key=self.lengths.__getitem__)
        ]


class BatchLoader:
    """The batches of a plan, read and decoded ahead in threads.

    Threads and not processes: decoding and resizing leave Python's lock alone, and nothing is copied between
    processes, forked beside CUDA or limited by /dev/shm. Errors arrive as they were raised.

    Lightning takes any iterable. This one is no torch DataLoader, so that it can say where it stands.

    num_workers: threads; 0 makes each batch when it is asked for.
    broken: where pictures that could not be read are noted, image_id -> reason; each is logged once.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        plan: BatchPlan,
        preprocessing: Preprocessing,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        broken: dict[str, str] | None = None,
    ) -> None:
        self.items = dataset
        self.plan = plan
        self.preprocessing = preprocessing
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.broken = {} if broken is None else broken
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.plan.batches(self.epoch))

    def __iter__(self) -> Iterator[CaptionBatch]:
        """The batches of the epoch; one whose pictures were all broken is left out.

        Raises:
            UserError: as `CaptionDataset.__getitem__`.
        """
        yield from self._from(0)

    def _from(self, start: int) -> Iterator[CaptionBatch]:
        # A generator starts at the first batch: Lightning makes the iterator before it sets the epoch.
        keys = [[(index, self.epoch) for index in batch] for batch in self.plan.batches(self.epoch)[start:]]
        for batch, pixels in read_ahead(self._make, keys, self.num_workers):
            if pixels is not None:
                batch.pixel_values = self.preprocessing.image.normalize(pixels)
            self._note(batch.broken)
            if len(batch):
                yield batch.pin_memory() if self.pin_memory else batch

    def _make(self, keys: Sequence[Key]) -> tuple[CaptionBatch, Tensor | None]:
        words = self.preprocessing
        return collate([self.items[key] for key in keys], words.start_id, words.eos_id, words.pad_id)

    def _note(self, broken: dict[str, str]) -> None:
        for image_id, reason in broken.items():
            if image_id not in self.broken:
                self.broken[image_id] = reason
                log.warning("left out or replaced: %s", reason)


def read_ahead(make: Callable[[Any], Made], keys: Sequence[Any], workers: int) -> Iterator[Made]:
    """`make` of every key, in order, up to two keys a thread ahead; what it raises is raised here."""
    if not workers:
        yield from map(make, keys)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="loader") as pool:
        ahead: deque[Future[Made]] = deque()
        try:
            for key in keys:
                ahead.append(pool.submit(make, key))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


class TrainLoader(BatchLoader):
    """A BatchLoader whose place in the epoch is kept in checkpoints.

    `state_dict` between two batches and `load_state_dict` before the first go on with exactly the next batch,
    whatever the threads have already prepared.

    done: asks the trainer how many batches of the epoch it has finished: fewer than were handed out when a
        step was interrupted.
    """

    done: Callable[[], int | None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed_out = 0
        self._skip = 0

    def __iter__(self) -> Iterator[CaptionBatch]:
        start, self._skip = self._skip, 0
        self._handed_out = start
        for batch in self._from(start):
            self._handed_out += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is of; a place kept from another epoch is forgotten."""
        if epoch != self.epoch:
            self.epoch, self._handed_out, self._skip = epoch, 0, 0

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Lightning calls `batch_sampler.sampler.set_epoch`; `sampler` alone it would replace to overfit."""
        return SimpleNamespace(sampler=self)

    def state_dict(self) -> dict[str, Any]:
        """Epoch, batches done in it, and what the order depends on; plain numbers and text."""
        done = self.done() if self.done else None
        return {
            "epoch": self.epoch,
            "batches": self._handed_out if done is None else min(done, self._handed_out),
            "order": self._order(),
            "broken": dict(self.broken),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` stood; over other data or batches the epoch starts at its first batch."""
        self.broken.update(state.get("broken", {}))
        if state.get("order") != self._order():
            log.warning(
                "the checkpoint stopped in a different order of images (data, batch size, seed or number of "
                "processes changed); this epoch goes on with the first batches of the new order"
            )
            return
        self.epoch, self._skip = state["epoch"], state["batches"]
        self._handed_out = self._skip

    def _order(self) -> dict[str, int]:
        plan = self.plan
        return {
            "images": len(plan.lengths),
            "tokens": int(sum(plan.lengths)),
            "batch_size": plan.batch_size * plan.world_size,
            "seed": plan.seed,
            "shuffle": int(plan.shuffle),
        }


def choose_workers(num_workers: int | None, pixels: bool, processes: int = 1) -> int:
    """Threads that read ahead: as set; else none when features are cached, or this process's share of cores.

    Raises:
        UserError: `num_workers` is negative.
    """
    if num_workers is not None:
        if num_workers < 0:
            raise UserError(
                f"datamodule.num_workers={num_workers}; expected 0 or more, or null to choose by the cores; "
                "set datamodule.num_workers=null"
            )
        return num_workers
    if not pixels:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // max(processes, 1), MAX_WORKERS))


def choose_pinning(pin_memory: bool | None) -> bool:
    """Page-locked memory: as set; else where there is a CUDA device to copy to."""
    return torch.cuda.is_available() if pin_memory is None else pin_memory
