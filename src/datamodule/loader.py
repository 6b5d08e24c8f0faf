"""How batches get here: read and decoded ahead in threads, and resumed in the middle of an epoch."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, TypeVar

import torch

from src.datamodule.caption_dataset import CaptionDataset, CaptionItem
from src.datamodule.collate import CaptionBatch, collate
from src.datamodule.processor import Processor
from src.datamodule.sampler import LengthGroupedSampler
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

MAX_WORKERS = 8

Made = TypeVar("Made")


class Loader(ABC):
    """The batches of an epoch. Subclasses say which (`_made`, `__len__`).

    Threads read ahead and not processes: decoding and resizing leave Python's lock alone, and nothing is
    copied between processes, forked beside CUDA or limited by /dev/shm. Errors arrive as they were raised.

    Lightning takes any iterable. This one is no torch DataLoader, so that it can say where it stands.

    num_workers: threads; 0 makes each batch when it is asked for.
    broken: where pictures that could not be read are noted, image_id -> reason; each is logged once.
    """

    def __init__(
        self,
        preprocessing: Processor,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        broken: dict[str, str] | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.broken = {} if broken is None else broken
        self.epoch = 0

    @abstractmethod
    def __len__(self) -> int:
        """Batches of the epoch."""

    @abstractmethod
    def _made(self, start: int) -> Iterable[CaptionBatch]:
        """The batches of the epoch from number `start` on."""

    def __iter__(self) -> Iterator[CaptionBatch]:
        """The batches of the epoch; one whose pictures were all broken is left out.

        Raises:
            UserError: as `CaptionDataset.__getitem__`.
        """
        yield from self._from(0)

    def _from(self, start: int) -> Iterator[CaptionBatch]:
        # A generator starts at the first batch: Lightning makes the iterator before it sets the epoch.
        for batch in self._made(start):
            self._note(batch.broken)
            if len(batch):
                yield batch.pin_memory() if self.pin_memory else batch

    def _collate(self, items: Sequence[CaptionItem]) -> CaptionBatch:
        words = self.preprocessing
        return collate(items, words.image, words.start_id, words.eos_id, words.pad_id)

    def _note(self, broken: dict[str, str]) -> None:
        for image_id, reason in broken.items():
            if image_id not in self.broken:
                self.broken[image_id] = reason
                log.warning("left out or replaced: %s", reason)


class BatchLoader(Loader):
    """The items of a dataset in the batches of a plan."""

    def __init__(
        self, dataset: CaptionDataset, plan: LengthGroupedSampler, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.items = dataset
        self.plan = plan
        self._planned: tuple[int, list[list[int]]] = (-1, [])

    def __len__(self) -> int:
        return len(self._batches())

    def _batches(self) -> list[list[int]]:
        if self._planned[0] != self.epoch:
            self._planned = (self.epoch, self.plan.batches(self.epoch))
        return self._planned[1]

    def _made(self, start: int) -> Iterable[CaptionBatch]:
        keys = [[(index, self.epoch) for index in batch] for batch in self._batches()[start:]]
        return read_ahead(self._make, keys, self.num_workers)

    def _make(self, keys: Sequence[tuple[int, int]]) -> CaptionBatch:
        return self._collate([self.items[key] for key in keys])


class Resumable(Loader):
    """A loader whose place in the epoch is kept in checkpoints.

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

    @abstractmethod
    def order(self) -> dict[str, int | str]:
        """What the order of an epoch's batches depends on, besides the epoch."""

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
            "order": self.order(),
            "broken": dict(self.broken),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` stood; over other data or batches the epoch starts at its first batch."""
        self.broken.update(state.get("broken", {}))
        if state.get("order") != self.order():
            log.warning(
                "the checkpoint stopped in a different order of images (data, batch size, seed or number of "
                "processes changed); this epoch goes on with the first batches of the new order"
            )
            return
        self.epoch, self._skip = state["epoch"], state["batches"]
        self._handed_out = self._skip


class TrainLoader(Resumable, BatchLoader):
    """A BatchLoader whose place in the epoch is kept in checkpoints."""

    def order(self) -> dict[str, int | str]:
        """Data, global batch size, seed and whether it is shuffled."""
        plan = self.plan
        return {
            "images": len(plan.lengths),
            "tokens": int(sum(plan.lengths)),
            "batch_size": plan.batch_size * plan.world_size,
            "seed": plan.seed,
            "shuffle": int(plan.shuffle),
        }


def read_ahead(make: Callable[[Any], Made], keys: Iterable[Any], workers: int) -> Iterator[Made]:
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
