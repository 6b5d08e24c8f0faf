"""Every image once per epoch over all processes, in an order of seed and epoch alone."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.loader import LengthGroupedSampler

LENGTHS = st.lists(st.integers(1, 50), max_size=70)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.booleans(), st.booleans())
def test_each_image_once_over_all_processes(lengths, batch_size, world_size, epoch, shuffle, equal_steps):
    slices = [
        LengthGroupedSampler(lengths, batch_size, 7, shuffle, equal_steps, rank, world_size).batches(epoch)
        for rank in range(world_size)
    ]
    seen = Counter(index for rank_slice in slices for batch in rank_slice for index in batch)
    assert set(seen) == set(range(len(lengths)))
    assert all(batch for rank_slice in slices for batch in rank_slice)
    if not equal_steps or len(lengths) >= world_size:
        assert max(seen.values(), default=1) == 1
    if equal_steps and lengths:
        assert sum(seen.values()) == max(len(lengths), world_size)  # repeated only to give each process a step
        assert len({len(rank_slice) for rank_slice in slices}) == 1
        sizes = [sum(len(rank_slice[step]) for rank_slice in slices) for step in range(len(slices[0]))]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size * world_size or batch_size == 1


def test_one_process_and_two_see_the_same_images_in_each_step() -> None:
    lengths = [3, 9, 4, 7, 5] * 13
    alone = LengthGroupedSampler(lengths, 8, 5).batches(2)
    pair = [LengthGroupedSampler(lengths, 4, 5, rank=rank, world_size=2).batches(2) for rank in (0, 1)]
    assert [sorted(batch) for batch in alone] == [sorted(a + b) for a, b in zip(*pair, strict=True)]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = list(range(1, 41))
    first = LengthGroupedSampler(lengths, 4, 1).batches(0)
    torch.manual_seed(99)
    assert LengthGroupedSampler(lengths, 4, 1).batches(0) == first
    assert LengthGroupedSampler(lengths, 4, 1).batches(1) != first
    assert LengthGroupedSampler(lengths, 4, 2).batches(0) != first
    unshuffled = LengthGroupedSampler(lengths, 4, 1, shuffle=False).batches(5)
    assert unshuffled == [list(range(start, start + 4)) for start in range(0, 40, 4)]


def test_images_of_similar_length_share_batches_in_random_order() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 200, (2000,), generator=generator).tolist()
    batches = LengthGroupedSampler(lengths, 16, 0).batches(0)
    longest = [max(lengths[index] for index in batch) for batch in batches]
    assert sum(most * len(batch) for most, batch in zip(longest, batches, strict=True)) < 1.15 * sum(lengths)
    assert longest != sorted(longest)
