"""Each sample in one stream of one process, and the same number of batches for all."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.readers.shards import Shard
from src.datamodule.stream_plan import Stream, StreamPlan
from src.utils.errors import UserError


def shards(*counts: int) -> list[Shard]:
    return [Shard(f"/x/{place}.tar", f"{place}.tar", count) for place, count in enumerate(counts)]


def samples(stream: Stream) -> list[tuple[str, int]]:
    return [
        (part.shard.name, number)
        for part in stream.parts
        for number in range(part.first, part.shard.samples, part.step)
    ]


COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(COUNTS, st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2))
def test_training_gives_each_sample_to_one_stream_and_all_the_same_steps(
    counts: list[int], batch_size: int, world_size: int, readers: int, epoch: int
) -> None:
    if sum(counts) < 4 * world_size:
        return
    plans = [
        StreamPlan(shards(*counts), batch_size, 3, True, readers, rank, world_size)
        for rank in range(world_size)
    ]
    try:
        streams = [stream for plan in plans for stream in plan.streams(epoch)]
    except UserError:  # a stream of single samples that stayed empty
        return
    seen = Counter(sample for stream in streams for sample in samples(stream))
    assert set(seen.values()) == {1}
    assert len(seen) == sum(counts)
    assert len({len(stream.sizes) for stream in streams}) == 1
    for stream in streams:
        assert 1 <= min(stream.sizes) <= max(stream.sizes) <= batch_size
        assert sum(stream.sizes) == len(samples(stream)) or min(stream.sizes) == max(stream.sizes) == 1
        assert sum(stream.sizes) <= len(samples(stream)) * stream.repeats


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 7), st.integers(1, 4))
def test_scoring_takes_each_sample_once_in_order(counts: list[int], batch_size: int, world_size: int) -> None:
    plans = [
        StreamPlan(shards(*counts), batch_size, 3, False, 2, rank, world_size) for rank in range(world_size)
    ]
    streams = [stream for plan in plans for stream in plan.streams(0)]
    assert len(streams) == world_size
    seen = Counter(sample for stream in streams for sample in samples(stream))
    assert len(seen) == sum(counts) == seen.total()
    for stream in streams:
        assert samples(stream) == sorted(samples(stream))
        assert sum(stream.sizes) == len(samples(stream))
        assert all(size == batch_size for size in stream.sizes[:-1])


def test_shards_are_dealt_anew_each_epoch_by_seed() -> None:
    def dealt(seed: int, epoch: int) -> list[list[tuple[str, int]]]:
        return [samples(stream) for stream in StreamPlan(shards(*[5] * 8), 4, seed, readers=2).streams(epoch)]

    assert dealt(0, 0) == dealt(0, 0)
    assert dealt(0, 0) != dealt(0, 1)
    assert dealt(0, 0) != dealt(1, 0)


def test_readers_are_no_more_than_shards() -> None:
    assert StreamPlan(shards(5, 5, 5, 5), 4, readers=9, world_size=2).streams_here == 2
    assert StreamPlan(shards(5), 4, readers=9, world_size=2).streams_here == 1
    assert StreamPlan(shards(5, 5, 5, 5), 4, train=False, readers=9).streams_here == 1


def test_a_short_stream_repeats_samples_to_make_its_steps() -> None:
    first, second = StreamPlan(shards(30, 2), 4, readers=2).streams(0)
    short = min((first, second), key=lambda stream: len(samples(stream)))
    assert len(first.sizes) == len(second.sizes) == 8
    assert short.sizes == (1,) * 8
    assert short.repeats == 4


def test_fewer_samples_than_processes() -> None:
    with pytest.raises(UserError, match="1 samples for 3 streams"):
        StreamPlan(shards(1), 4, world_size=3).streams(0)
