"""Batches in order, read ahead in threads, and resumed exactly, alone and within Lightning."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.caption_dataset import CaptionDataset, tokenize_captions
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.loader import CaptionLoader, LengthGroupedSampler, choose_workers, read_ahead
from tests.datamodule.tiny import tiny_processor, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[CaptionedImage]:
    return write_images(tmp_path_factory.mktemp("images"), 22)


def loader(images: list[CaptionedImage], workers: int = 0, train: bool = True, **sampler: Any) -> Any:
    processor = tiny_processor()
    tokens, _ = tokenize_captions(images, processor, processor.token_limit())
    lengths = [sum(len(ids) + 1 for ids in captions) for captions in tokens]
    dataset = CaptionDataset(images, processor.image, tokens, train=train, captions_per_image=1)
    return CaptionLoader(dataset, LengthGroupedSampler(lengths, 4, **sampler), processor, num_workers=workers)


def content(batches: Any) -> list[tuple[list[str], list[list[int]]]]:
    return [(batch.image_ids, batch.input_ids.tolist()) for batch in batches]


def test_batches_read_ahead_come_in_order_and_a_few_ahead() -> None:
    loaded: list[int] = []

    def load(key: int) -> int:
        time.sleep(0.002 * (key % 3))
        loaded.append(key)
        return key

    before = threading.active_count()
    results = read_ahead(load, range(40), workers=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(loaded) <= 5 + 2 * 3 + 1
    assert list(results) == list(range(5, 40))
    assert list(read_ahead(load, range(3), workers=0)) == [0, 1, 2]
    assert list(read_ahead(load, [], workers=2)) == []
    results = read_ahead(load, range(1000), workers=3)
    next(results)
    results.close()
    failing = read_ahead(lambda key: 6 // (3 - key), range(9), workers=2)
    assert [next(failing) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(failing)
    assert threading.active_count() == before


def test_unreadable_images_are_recorded_once_over_epochs(tmp_path: Path, caplog) -> None:
    images = write_images(tmp_path, 9)
    Path(images[4].path).write_bytes(b"unreadable")
    training = loader(images, workers=2)
    for epoch in range(3):
        training.set_epoch(epoch)
        found = [name for batch in training for name in batch.image_ids]
        assert len(found) == 9
        assert "004.png" not in found
    assert list(training.unreadable) == ["004.png"]
    assert sum("004.png" in record.getMessage() for record in caplog.records) == 1


def test_a_batch_of_unreadable_images_alone_is_skipped(tmp_path: Path) -> None:
    images = write_images(tmp_path, 6)
    for image in images[:4]:
        Path(image.path).unlink()
    testing = loader(images, train=False, shuffle=False, equal_steps=False)
    assert [batch.image_ids for batch in testing] == [["004.png", "005.png"]]
    assert len(testing.unreadable) == 4


@pytest.mark.parametrize(("workers", "position"), [(0, 0), (2, 1), (0, 4), (2, 6)])
def test_resumed_between_two_batches(images: list[CaptionedImage], workers: int, position: int) -> None:
    whole, first, second = loader(images), loader(images, workers), loader(images, workers)
    whole.set_epoch(3)
    expected = content(whole)
    first.set_epoch(3)
    batches = iter(first)
    begun = content(next(batches) for _ in range(position))
    state = first.state_dict()
    second.load_state_dict(state)
    assert second.state_dict() == state
    second.set_epoch(3)
    assert begun + content(second) == expected
    assert len(list(second)) == len(expected)  # the position is used once


def test_a_batch_whose_step_was_interrupted_is_repeated(images: list[CaptionedImage]) -> None:
    training, resumed = loader(images), loader(images)
    batches = iter(training)
    handed_out = content(next(batches) for _ in range(4))
    training.num_finished = lambda: 3
    resumed.load_state_dict(training.state_dict())
    assert content(resumed)[0] == handed_out[3]


def test_a_position_in_another_epoch_or_order_is_dropped(images: list[CaptionedImage], caplog) -> None:
    state = loader(images).state_dict()
    training = loader(images)
    training.load_state_dict({**state, "epoch": 2, "batches": 6})
    training.set_epoch(3)
    assert len(list(training)) == 6
    training = loader(images[:-3])
    training.load_state_dict({**state, "batches": 2, "unreadable": {"x": "gone"}})
    assert len(list(training)) == len(training)
    assert "another order of images" in caplog.text
    assert training.unreadable == {"x": "gone"}


@pytest.mark.parametrize(
    ("requested", "pixels", "processes", "cores", "expected"),
    [
        (3, True, 1, 8, 3),
        (0, True, 1, 8, 0),
        (None, False, 1, 8, 0),
        (None, True, 1, 64, 8),
        (None, True, 2, 4, 2),
        (None, True, 8, 4, 1),
    ],
)
def test_threads_by_the_cores(requested, pixels, processes, cores, expected, monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert choose_workers(requested, pixels, processes) == expected


# The order: every image once per epoch over all processes, by seed and epoch alone

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
