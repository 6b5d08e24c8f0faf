"""Which image is in which batch of which process.

The order depends on seed and epoch alone. All processes draw the same global batches of
`batch_size x world_size` images, and each takes its share of every one: one process with a batch of 16 and
two with 8 see the same images in the same step.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from src.datamodule.caption_dataset import drawn

BUCKET = 8  # global batches that are sorted by length together: more would make each batch of one kind


@dataclass(frozen=True)
class LengthGroupedSampler:
    """The images of every batch of an epoch for one process.

    lengths: packed tokens of each image; images of like length share a batch.
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
