"""A stream of shards: once per epoch over processes, resumed in mid-epoch, broken pictures replaced."""

import multiprocessing
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from src.datamodule.processor import Processor
from src.datamodule.readers.shards import Shard, index_shards
from src.datamodule.stream_loader import StreamLoader, import_webdataset, read_shard
from src.datamodule.stream_plan import StreamPlan
from src.utils.errors import UserError
from tests.datamodule.shard_files import add, picture, write_shard
from tests.datamodule.tiny import preprocessing


@pytest.fixture(scope="module")
def words() -> Processor:
    return preprocessing()


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    """1,000 samples in 4 shards."""
    folder = tmp_path_factory.mktemp("shards")
    paths = [write_shard(folder / f"{n:05}.tar", range(n * 250, n * 250 + 250)) for n in range(4)]
    return index_shards(folder, paths)


def stream(shards: list[Shard], words: Processor, **settings: Any) -> StreamLoader:
    plan = {
        key: settings.pop(key)
        for key in ("train", "readers", "rank", "world_size", "seed")
        if key in settings
    }
    return StreamLoader(StreamPlan(shards, 16, **plan), words, **{"window": 32, **settings})


def names(batches: Any) -> list[str]:
    return [name for batch in batches for name in batch.image_ids]


def read_part(shards, words, rank, workers, readers, stop, state, answers) -> None:
    """What a process of a run does: `stop` batches of epoch 1, or all, from `state` on."""
    loader = stream(shards, words, rank=rank, world_size=2, readers=readers, num_workers=workers)
    if state is not None:
        loader.load_state_dict(state)
    loader.set_epoch(1)
    seen = []
    for batch in loader:
        seen += batch.image_ids
        stop -= 1
        if not stop:
            break
    answers.put((rank, seen, loader.state_dict(), len(loader)))


def in_two_processes(shards, words, workers, readers, stop=-1, states=(None, None)) -> list[Any]:
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    both = [
        fork.Process(
            target=read_part, args=(shards, words, rank, workers, readers, stop, states[rank], answers)
        )
        for rank in (0, 1)
    ]
    for process in both:
        process.start()
    found = sorted((answers.get(timeout=60) for _ in both), key=lambda answer: answer[0])
    for process in both:
        process.join(timeout=60)
    return found


@pytest.mark.parametrize(("workers", "readers"), [(0, 1), (2, 2)])
def test_1000_samples_of_4_shards_in_2_processes_once_per_epoch_resumed_in_mid_epoch(
    thousand: list[Shard], words: Processor, workers: int, readers: int
) -> None:
    whole = in_two_processes(thousand, words, workers, readers)
    everything = whole[0][1] + whole[1][1]
    assert len(everything) == len(set(everything)) == 1000
    assert whole[0][3] == whole[1][3] == 32
    begun = in_two_processes(thousand, words, workers, readers, stop=13)
    states = (begun[0][2], begun[1][2])
    rest = in_two_processes(thousand, words, workers, readers, states=states)
    for rank in (0, 1):
        assert begun[rank][1] + rest[rank][1] == whole[rank][1]
        assert 0 < len(begun[rank][1]) < 500


@pytest.mark.parametrize("readers", [1, 3])
def test_resumed_anywhere(tmp_path: Path, words: Processor, readers: int) -> None:
    paths = [write_shard(tmp_path / f"{n}.tar", range(n * 50, n * 50 + 40 + n)) for n in range(4)]
    shards = index_shards(tmp_path, paths)
    whole = [batch.image_ids for batch in stream(shards, words, readers=readers)]
    assert len({name for names in whole for name in names}) == 166
    for place in range(len(whole) + 1):
        loader = stream(shards, words, readers=readers)
        loader.load_state_dict({**loader.state_dict(), "batches": place})
        assert [batch.image_ids for batch in loader] == whole[place:]


def test_epochs_differ_and_threads_change_nothing(thousand: list[Shard], words: Processor) -> None:
    alone, threads = stream(thousand, words), stream(thousand, words, num_workers=3)
    first = [(batch.image_ids, batch.pixel_values) for batch in alone]
    for (ids, pixels), batch in zip(first, threads, strict=True):
        assert ids == batch.image_ids
        assert torch.equal(pixels, batch.pixel_values)
    alone.set_epoch(1)
    second = names(alone)
    assert second != [name for ids, _ in first for name in ids]
    assert len(set(second)) == 1000


def test_shards_before_the_place_are_not_opened(thousand: list[Shard], words: Processor, monkeypatch) -> None:
    opened = []
    monkeypatch.setattr(
        "src.datamodule.stream_loader.read_shard",
        lambda shard: opened.append(shard.name) or read_shard(shard),
    )
    loader = stream(thousand, words)
    loader.load_state_dict({**loader.state_dict(), "batches": 50})
    next(iter(loader))
    assert len(opened) == 1


def test_scoring_keeps_the_order(thousand: list[Shard], words: Processor) -> None:
    loader = stream(thousand, words, train=False)
    found = names(loader)
    assert found == sorted(found)
    assert len(found) == 1000
    assert len(loader) == 63
    halves = [names(stream(thousand, words, train=False, rank=rank, world_size=2)) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == found


def test_a_batch_holds_pixels_tokens_and_references(thousand: list[Shard], words: Processor) -> None:
    batch = next(iter(stream(thousand, words, train=False)))
    assert batch.pixel_values.shape == (16, 3, 8, 8)
    assert batch.image_ids[3] == "00000.tar/000000003"
    assert batch.references[3] == ["picture 3"]
    assert words.decode(batch.input_ids[3]) == "picture 3"
    assert batch.pixel_values[3, 0, 0, 0].item() == pytest.approx(3 / 127.5 - 1)


def test_broken_pictures_are_replaced_in_training_and_left_out_in_scoring(
    tmp_path: Path, words: Processor
) -> None:
    shards = index_shards(tmp_path, [write_shard(tmp_path / "a.tar", range(40), broken=(3, 17))])
    lost = {"a.tar/000000003", "a.tar/000000017"}
    training = stream(shards, words, num_workers=2)
    found = names(training)
    assert len(found) == 40
    assert lost.isdisjoint(found)
    assert set(training.broken) == lost
    assert found == names(stream(shards, words))
    scoring = stream(shards, words, train=False)
    assert len(names(scoring)) == 38
    assert set(scoring.broken) == lost


def test_a_batch_of_broken_pictures_borrows_from_its_shard(tmp_path: Path, words: Processor) -> None:
    shards = index_shards(tmp_path, [write_shard(tmp_path / "a.tar", range(40), broken=tuple(range(16)))])
    found = names(stream(shards, words, window=1))
    assert len(found) == 40
    assert set(found) == {f"a.tar/{number:09}" for number in range(16, 40)}


def test_all_broken_is_an_error(tmp_path: Path, words: Processor) -> None:
    shards = index_shards(tmp_path, [write_shard(tmp_path / "a.tar", range(30), broken=tuple(range(30)))])
    with pytest.raises(UserError, match="pictures in a row cannot be read"):
        names(stream(shards, words, num_workers=2))
    twenty = index_shards(tmp_path, [write_shard(tmp_path / "b.tar", range(99), broken=tuple(range(99)))])
    with pytest.raises(UserError, match="20 pictures in a row cannot be read"):
        names(stream(twenty, words))


def test_captions_and_crops_are_drawn(tmp_path: Path, words: Processor) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(8):
            add(tar, f"{number}.jpg", picture(number, "JPEG"))
            add(tar, f"{number}.json", b'{"captions": ["a", "b", "c"]}')
    shards = index_shards(tmp_path, [tmp_path / "a.tar"])
    loader = stream(shards, words, captions_per_image=1, augment=True)
    drawn = set()
    for epoch in range(3):
        loader.set_epoch(epoch)
        (batch,) = loader
        assert batch.caption_index.max() == 0
        assert batch.references[0] == ["a", "b", "c"]
        drawn |= {words.decode(row) for row in batch.input_ids}
    assert drawn == {"a", "b", "c"}


def test_too_few_samples_are_repeated_to_make_equal_steps(tmp_path: Path, words: Processor) -> None:
    paths = [write_shard(tmp_path / "a.tar", range(64)), write_shard(tmp_path / "b.tar", range(2))]
    loaders = [stream(index_shards(tmp_path, paths), words, rank=rank, world_size=2) for rank in (0, 1)]
    assert len(loaders[0]) == len(loaders[1]) == 4
    assert sorted(len(names(loader)) for loader in loaders) == [4, 64]


def test_a_shard_that_changes_or_vanishes_is_named(tmp_path: Path, words: Processor) -> None:
    path = write_shard(tmp_path / "a.tar", range(40))
    shards = index_shards(tmp_path, [path])
    write_shard(path, range(30))
    with pytest.raises(UserError, match=r"a\.tar: 30 samples; expected 40"):
        list(read_shard(shards[0]))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"a\.tar: "):
        list(read_shard(shards[0]))
    path.unlink()
    with pytest.raises(UserError, match=r"a\.tar: ") as caught:
        names(stream(shards, words, num_workers=2))
    assert "\n" not in str(caught.value)


def test_a_name_that_looks_like_a_command_is_a_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_shard(tmp_path / "pipe:touch trapped;.tar", range(2))
    (shard,) = index_shards(tmp_path, [path])
    assert len(list(read_shard(shard))) == 2
    assert not (tmp_path / "trapped").exists()


def test_the_library_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(UserError, match="poetry install --extras stream"):
        import_webdataset()
