"""Length-grouped distributed batch sampler: which image is in which batch of which process.

All processes form the same global batches of `batch_size x world_size` images, and each takes its rank slice.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from src.datamodule.caption_dataset import seeded_rng

BUCKET = 8  # global batches sorted by length together: more would make the batches of an epoch too alike


@dataclass(frozen=True)
class LengthGroupedSampler:
    """Batches of an epoch for one process."""

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
