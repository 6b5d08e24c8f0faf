"""Features on disk: whole or not there, found by what the picture is, old ones cleared away."""

import os
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from src.datamodule.feature_store import (
    STALE_SECONDS,
    ShardedFeatures,
    clean_caches,
    feature_bytes,
    feature_key,
    folder_bytes,
)
from tests.datamodule.tiny import draw


@pytest.fixture
def images(tmp_path):
    return draw(tmp_path / "pictures", 4)


@pytest.fixture
def folder(tmp_path):
    """A store's folder with one shard of four images, whose rows are 0, 1, 2, 3."""
    (tmp_path / "cache" / "one").mkdir(parents=True)
    return tmp_path / "cache" / "one"


def rows(count, shift=0):
    """Features (N,2,3) whose values tell the row."""
    return (torch.arange(count) + shift).view(-1, 1, 1).expand(-1, 2, 3).float()


def opened(folder, images, views=1):
    store = ShardedFeatures(folder, views)
    store.read_shards()
    return store, store.add_images(images, views)


def test_what_was_written_is_read_by_another_store(folder, images):
    store, lacking = opened(folder, images)
    assert lacking == [(image, 0) for image in images]
    store.write_shard(lacking, rows(4))
    again, lacking = opened(folder, images)
    assert lacking == []
    for number, image in enumerate(images):
        assert torch.equal(again.get(image.image_id), torch.full((2, 3), float(number)))


def test_shards_that_others_wrote_meanwhile_are_found(folder, images):
    store, lacking = opened(folder, images)
    other, _ = opened(folder, images)
    other.write_shard(lacking[:3], rows(3))
    assert store.lacking(lacking) == lacking
    store.read_shards()
    assert store.lacking(lacking) == lacking[3:]
    with pytest.raises(KeyError):
        store.get(images[3].image_id)


def test_a_view_is_an_entry_of_its_own(folder, images):
    store, lacking = opened(folder, images, views=2)
    assert len(lacking) == 8
    store.write_shard(lacking, rows(8))
    again, lacking = opened(folder, images, views=3)
    assert lacking == [(image, 2) for image in images]
    assert [int(again.get(images[1].image_id, view)[0, 0]) for view in (0, 1)] == [1, 5]
    assert again.num_views == 3


def test_the_key_changes_with_the_picture_its_part_and_the_view_alone(images, tmp_path):
    image = images[0]
    key = feature_key(image)
    assert feature_key(replace(image, captions=("another",), image_id="x")) == key
    moved = tmp_path / "elsewhere" / os.path.basename(image.path)
    moved.parent.mkdir()
    os.link(image.path, moved)
    assert feature_key(replace(image, path=str(moved))) == key  # a data set may move
    others = [
        feature_key(image, 1),
        feature_key(replace(image, box=(0, 0, 4, 4))),
        feature_key(images[1]),
        feature_key(replace(image, path=image.path + ".gone")),
    ]
    os.utime(image.path, (1, 1))
    others.append(feature_key(image))
    assert len({key, *others}) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b""),
        lambda path: save_file({"features": rows(4)}, path),
        lambda path: save_file({"features": rows(4)}, path, {"keys": "no list"}),
        lambda path: save_file({"features": rows(4)}, path, {"keys": '["a"]'}),
        lambda path: save_file({"features": torch.zeros(1, 2)}, path, {"keys": '["a"]'}),
        lambda path: save_file({"others": rows(4)}, path, {"keys": '["a", "b", "c", "d"]'}),
    ],
    ids=["cut", "empty", "no keys", "keys no list", "fewer keys", "another shape", "another tensor"],
)
def test_a_damaged_shard_is_removed_to_be_made_again(folder, images, damage, caplog):
    store, lacking = opened(folder, images)
    store.write_shard(lacking, rows(4))
    (path,) = folder.iterdir()
    damage(path)
    _, lacking = opened(folder, images)
    assert len(lacking) == 4
    assert list(folder.iterdir()) == []
    assert f"{path} is damaged" in caplog.text


def test_a_shard_that_cannot_be_written_leaves_nothing(folder, images, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    store, lacking = opened(folder, images)
    monkeypatch.setattr("src.utils.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_shard(lacking, rows(4))
    assert list(folder.iterdir()) == []


def cache(parent, name, size, age):
    """A cache of some bytes that was used `age` seconds ago."""
    (parent / name).mkdir(parents=True)
    (parent / name / "x.safetensors").write_bytes(b"x" * size)
    os.utime(parent / name, (time.time() - age,) * 2)
    return parent / name


def test_the_caches_unused_for_longest_go_first_and_only_as_many_as_needed(tmp_path):
    parent = tmp_path / "cache"
    oldest, older, young = (
        cache(parent, name, 100, age) for name, age in (("c", 900), ("a", 600), ("b", 300))
    )
    mine = cache(parent, "mine", 100, 1000)
    clean_caches(parent, mine, limit_bytes=400)
    assert len(list(parent.iterdir())) == 4
    clean_caches(parent, mine, limit_bytes=250)
    assert set(parent.iterdir()) == {young, mine}
    assert not oldest.exists()
    assert not older.exists()
    clean_caches(parent, mine, limit_bytes=0)
    assert set(parent.iterdir()) == {mine}  # the one in use stays in any case


def test_leftovers_of_a_killed_writer_are_removed_and_those_of_a_living_one_are_not(tmp_path):
    folder = cache(tmp_path, "one", 10, 0)
    for name, age in ((".old.tmp", STALE_SECONDS + 60), (".new.tmp", 5)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    clean_caches(tmp_path, folder, limit_bytes=1e9)
    assert sorted(path.name for path in folder.iterdir()) == [".new.tmp", "x.safetensors"]


def test_bytes_are_counted(tmp_path):
    (cache(tmp_path, "one", 10, 0) / "inside").mkdir()
    (tmp_path / "one" / "inside" / "y").write_bytes(b"12345")
    assert folder_bytes(tmp_path / "one") == 15
    assert feature_bytes((197, 768), torch.bfloat16, 10) == 197 * 768 * 2 * 10
