"""Which image is in which batch of which process, and how the batches get here.

The order depends on seed and epoch alone. All processes draw the same global batches of
`batch_size x world_size` images, and each takes its share of every one: one process with a batch of 16 and
two with 8 see the same images in the same step.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from src.datamodule.caption_dataset import CaptionDataset, drawn
from src.datamodule.collate import CaptionBatch, collate
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

BUCKET = 32  # global batches that are sorted by length together
MAX_WORKERS = 8

Key = tuple[int, int]  # (index, epoch)


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
        """The indices of each batch of this process.

        Over all processes each image occurs once. A last global batch with fewer images than processes is
        added to the one before; only where the whole set has fewer images than processes are images
        repeated, so that every process has a step to make.
        """
        order = list(range(len(self.lengths)))
        size = self.batch_size * self.world_size
        chance = drawn(self.seed, epoch, "", "order")
        if self.shuffle:
            chance.shuffle(order)
            order = self._by_length(order, size)
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        if self.equal_steps and groups and len(groups[-1]) < self.world_size:
            if len(groups) > 1:
                groups[-2] += groups.pop()
            else:
                groups[0] = [order[i % len(order)] for i in range(self.world_size)]
        if self.shuffle:
            chance.shuffle(groups)
        shares = [group[self.rank :: self.world_size] for group in groups]
        return [share for share in shares if share]

    def _by_length(self, order: list[int], size: int) -> list[int]:
        """Sort stretches of the shuffled order by length: neighbours are alike, chance still mixes."""
        stretch = size * BUCKET
        return [
            index
            for start in range(0, len(order), stretch)
            for index in sorted(order[start : start + stretch], key=self.lengths.__getitem__)
        ]


@dataclass(frozen=True)
class Failure:
    """What a worker process sends instead of a batch when the person has something to mend."""

    message: str


class BatchSource(Dataset[CaptionBatch | Failure]):
    """Whole batches by the keys of their items; runs in the worker processes."""

    def __init__(self, dataset: CaptionDataset) -> None:
        self.items = dataset

    def __getitem__(self, keys: list[Key]) -> CaptionBatch | Failure:
        # torch would wrap the error in the worker's traceback, many lines long.
        try:
            batch = [self.items[key] for key in keys]
        except UserError as error:
            return Failure(str(error))
        words = self.items.preprocessing
        return collate(batch, words.start_id, words.eos_id, words.pad_id)


class _Keys:
    """What torch's DataLoader asks for the batches still to come, anew for each epoch."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class BatchLoader:
    """The batches of a plan, made in worker processes that stay between epochs.

    Lightning takes any iterable. This one is no torch DataLoader, so that it can say where it stands:
    `state_dict` between two batches and `load_state_dict` before the first go on with exactly the next batch,
    whatever the workers have already prepared.

    done: asks the trainer how many batches of the epoch it has finished; without it (or before the first)
        the batches handed out count. They differ when a step is interrupted.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        plan: BatchPlan,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        broken: dict[str, str] | None = None,
    ) -> None:
        self.plan = plan
        self.num_workers = num_workers
        self.broken = {} if broken is None else broken
        self.epoch = 0
        self._handed_out = 0
        self._skip = 0
        self._keys = _Keys()
        self._loader: DataLoader[Any] = DataLoader(
            BatchSource(dataset),
            batch_size=None,
            sampler=self._keys,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            collate_fn=_as_it_is,
        )

    def __len__(self) -> int:
        return len(self.plan.batches(self.epoch))

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is of; a place kept from another epoch is forgotten."""
        if epoch != self.epoch:
            self.epoch, self._handed_out, self._skip = epoch, 0, 0

    def __iter__(self) -> Iterator[CaptionBatch]:
        # A generator starts at the first batch: Lightning makes the iterator before it sets the epoch.
        batches = self.plan.batches(self.epoch)
        start, self._skip = self._skip, 0
        self._handed_out = start
        self._keys.batches = [[(index, self.epoch) for index in batch] for batch in batches[start:]]
        for batch in self._loader:
            self._handed_out += 1
            if isinstance(batch, Failure):
                raise UserError(batch.message)
            self._note(batch.broken)
            if len(batch):
                yield batch

    def _note(self, broken: dict[str, str]) -> None:
        for image_id, reason in broken.items():
            if image_id not in self.broken:
                self.broken[image_id] = reason
                log.warning("left out or replaced: %s", reason)


class TrainLoader(BatchLoader):
    """A BatchLoader whose place in the epoch is kept in checkpoints."""

    done: Callable[[], int | None] | None = None

    @property
    def batch_sampler(self) -> "TrainLoader":
        """Lightning calls `batch_sampler.sampler.set_epoch`."""
        return self

    @property
    def sampler(self) -> "TrainLoader":
        return self

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
    """Worker processes: as set; else none when features are cached, and the free cores of this process.

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
    return max(1, min(cores // max(processes, 1) - 1, MAX_WORKERS))


def choose_pinning(pin_memory: bool | None) -> bool:
    """Page-locked memory: as set; else where there is a CUDA device to copy to."""
    return torch.cuda.is_available() if pin_memory is None else pin_memory


def _as_it_is(batch: Any) -> Any:
    return batch
