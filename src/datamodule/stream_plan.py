"""Which shard is read by which process when, and how many samples make each batch.

Every process reads `readers` streams at once and takes its batches from them in turn. Shards are dealt to
the streams anew in each epoch. All streams make the same number of batches, so that all processes make the
same number of steps, and a place in the epoch is one number.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from src.datamodule.caption_dataset import drawn
from src.datamodule.readers.shards import Shard
from src.utils.errors import UserError


@dataclass(frozen=True, slots=True)
class Part:
    """The samples `first`, `first + step`, ... of a shard."""

    shard: Shard
    first: int = 0
    step: int = 1

    def __len__(self) -> int:
        return len(range(self.first, self.shard.samples, self.step))


@dataclass(frozen=True, slots=True)
class Stream:
    """Parts read one after another, and how many of their samples each batch takes.

    repeats: times that the parts are gone through, above 1 only where a stream has fewer samples than steps.
    """

    parts: tuple[Part, ...]
    sizes: tuple[int, ...]
    repeats: int = 1


@dataclass(frozen=True)
class StreamPlan:
    """The streams of every epoch.

    train: shards are dealt by chance, and all streams of all processes make equally many batches.
        Otherwise the order stays, each process has one stream, and steps may differ.
    readers: streams of a process; fewer where there are fewer shards.
    """

    shards: Sequence[Shard]
    batch_size: int
    seed: int = 0
    train: bool = True
    readers: int = 1
    rank: int = 0
    world_size: int = 1

    @property
    def streams_here(self) -> int:
        """Streams of one process."""
        return max(1, min(self.readers, len(self.shards) // self.world_size)) if self.train else 1

    def streams(self, epoch: int) -> list[Stream]:
        """This process's streams. Batch number b of the process is batch b // n of stream b % n of n.

        Raises:
            UserError: fewer samples than processes to train on.
        """
        dealt = self._deal(epoch)
        counts = [sum(len(part) for part in parts) for parts in dealt]
        if self.train and not min(counts):
            raise UserError(
                f"{sum(counts)} samples for {len(counts)} streams; expected at least one for each process "
                "and reader; use fewer processes, set datamodule.readers=1 or give more shards"
            )
        steps = max(-(-count // self.batch_size) for count in counts)
        here = range(self.rank * self.streams_here, (self.rank + 1) * self.streams_here)
        return [self._stream(dealt[place], counts[place], steps) for place in here]

    def _stream(self, parts: tuple[Part, ...], count: int, steps: int) -> Stream:
        if not self.train:
            size = self.batch_size
            return Stream(parts, tuple(min(size, count - start) for start in range(0, count, size)))
        total = max(count, steps)
        ends = [total * step // steps for step in range(steps + 1)]
        sizes = tuple(end - start for start, end in itertools.pairwise(ends))
        return Stream(parts, sizes, -(-total // count))

    def _deal(self, epoch: int) -> list[tuple[Part, ...]]:
        """Whole shards to all streams of all processes; every n-th sample where there are too few shards."""
        streams = self.streams_here * self.world_size
        shards = list(self.shards)
        if self.train:
            drawn(self.seed, epoch, "", "shards").shuffle(shards)
        if len(shards) < streams:
            return [tuple(Part(shard, first, streams) for shard in shards) for first in range(streams)]
        dealt: list[list[Part]] = [[] for _ in range(streams)]
        loads = [0] * streams
        for shard in shards:
            place = loads.index(min(loads))
            dealt[place].append(Part(shard))
            loads[place] += shard.samples
        return [tuple(parts) for parts in dealt]
