"""Features on disk: whole or missing, keyed by image content, verified, and pruned without touching foreign files."""

import json
import os
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from src.datamodule.feature_store import (
    MARKER,
    STALE_SECONDS,
    ShardedFeatures,
    estimate_bytes,
    feature_key,
    image_digest,
)
from tests.datamodule.tiny import draw


@pytest.fixture
def images(tmp_path):
    return draw(tmp_path / "images", 4)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "one"


def rows(count, first=0):
    """Features (N,2,3) whose values are the row's number."""
    return (torch.arange(count) + first).view(-1, 1, 1).expand(-1, 2, 3).float()


def keys_of(wanted, seed=0):
    return [feature_key(image_digest(image), image, view, seed) for image, view in wanted]


def open_store(folder, images, views=1, **settings):
    store = ShardedFeatures(folder, views, **settings)
    store.read_shards()
    return store, store.add_images(images, views)


def write(folder, images, views=1, first=0):
    """Write one shard of all images and views; return its path."""
    store, missing = open_store(folder, images, views)
    store.create()
    before = shards(folder)
    store.write_shard(keys_of(missing), rows(len(missing), first))
    (path,) = shards(folder) - before
    return path


def shards(folder):
    return set(folder.glob("*.safetensors"))


def test_another_store_reads_what_was_written(folder, images):
    write(folder, images)
    store, missing = open_store(folder, images)
    assert missing == []
    for number, image in enumerate(images):
        assert torch.equal(store.get(image.image_id), torch.full((2, 3), float(number)))


def test_shards_written_meanwhile_by_another_process_are_found(folder, images):
    store, missing = open_store(folder, images)
    write(folder, images[:3])
    assert store.missing(missing) == missing
    store.read_shards()
    assert store.missing(missing) == missing[3:]
    with pytest.raises(KeyError):
        store.get(images[3].image_id)


def test_each_view_has_features_of_its_own(folder, images):
    write(folder, images, views=2)
    store, missing = open_store(folder, images, views=3)
    assert missing == [(image, 2) for image in images]
    assert [int(store.get(images[1].image_id, view)[0, 0]) for view in (0, 1)] == [1, 5]


def test_equal_names_sizes_and_times_do_not_share_features(folder, tmp_path):
    """As `cats/0001.bmp` and `dogs/0001.bmp` of one archive."""
    found = []
    for subfolder, color in (("cats", 0), ("dogs", 255)):
        (image,) = draw(tmp_path / subfolder, 1)
        Image.new("RGB", (12, 10), (color,) * 3).save(image.path, "BMP")
        os.utime(image.path, (315532800,) * 2)
        found.append(image)
    assert os.stat(found[0].path).st_size == os.stat(found[1].path).st_size
    write(folder, found[:1])
    _, missing = open_store(folder, found[1:])
    assert missing == [(found[1], 0)]


def test_the_key_depends_on_content_box_and_random_crop_alone(images, tmp_path):
    image = images[0]
    (key,) = keys_of([(image, 0)])
    moved = tmp_path / "moved.png"
    os.link(image.path, moved)
    os.utime(moved, (1, 1))
    assert keys_of([(replace(image, path=str(moved), image_id="x"), 0)], seed=5) == [key]
    crops = [keys_of([(image, 1)]), keys_of([(image, 2)]), keys_of([(image, 1)], seed=1)]
    crops.append(keys_of([(replace(image, image_id="x"), 1)]))
    others = [keys_of([(images[1], 0)]), keys_of([(replace(image, box=(0, 0, 4, 4)), 0)])]
    assert len({key, *(other for (other,) in crops + others)}) == 7
    Image.new("RGB", (12, 10)).save(image.path)
    assert keys_of([(image, 0)]) != [key]


def test_an_image_that_cannot_be_read_stays_missing(folder, images):
    gone = replace(images[0], path=images[0].path + ".gone")
    store, missing = open_store(folder, [gone])
    assert missing == [(gone, 0)]
    with pytest.raises(KeyError):
        store.get(gone.image_id)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def zero_the_end(path):
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))


def swap_keys(path):
    with safe_open(path, "pt") as file:
        index = json.loads(file.metadata()["index"])
    index["keys"][:2] = index["keys"][1::-1]
    save_file(
        {name: tensor.clone() for name, tensor in load_file(path).items()}, path, {"index": json.dumps(index)}
    )


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        zero_the_end,
        swap_keys,
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b""),
        lambda path: save_file({"features": rows(4)}, path),
        lambda path: save_file({"features": rows(4)}, path, {"index": '{"keys": "no list", "checksum": 0}'}),
        lambda path: save_file({"features": rows(4)}, path, {"index": '{"keys": ["a"], "checksum": 0}'}),
        lambda path: save_file(
            {"features": torch.zeros(1, 2)}, path, {"index": '{"keys": ["a"], "checksum": 0}'}
        ),
    ],
    ids=["bit", "zeros", "swapped", "cut", "empty", "no_keys", "bad_keys", "fewer_keys", "shape"],
)
def test_a_damaged_shard_is_removed_and_its_features_missing(folder, images, damage, caplog):
    path = write(folder, images)
    damage(path)
    _, missing = open_store(folder, images)
    assert len(missing) == 4
    assert not path.exists()
    assert f"{path} is damaged" in caplog.text


def test_a_shard_that_cannot_be_written_leaves_nothing(folder, images, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("src.utils.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write(folder, images)
    assert [path.name for path in folder.iterdir()] == [MARKER]


def cache(parent, name, images, age):
    """A cache of one shard that was used `age` seconds ago."""
    path = write(parent / name, images)
    for used in (path, path.parent):
        os.utime(used, (time.time() - age,) * 2)
    return path


def test_caches_unused_for_longest_are_pruned_first(tmp_path, images):
    oldest, older, young = (
        cache(tmp_path, name, images, age) for name, age in (("c", 900), ("a", 600), ("b", 300))
    )
    store, _ = open_store(tmp_path / "mine", images)
    size = young.stat().st_size
    store.prune(3 * size)
    assert oldest.exists()
    store.prune(1.5 * size)
    assert not oldest.parent.exists()
    assert not older.parent.exists()
    assert young.exists()


def test_rows_of_changed_images_are_pruned_from_the_folder_in_use(folder, images):
    old, mixed = cache(folder.parent, "one", images[:2], 900), cache(folder.parent, "one", images[2:], 100)
    limit = old.stat().st_size + mixed.stat().st_size
    for image in (*images[:2], images[3]):
        Image.new("RGB", (5, 5), "red").save(image.path)
    store, missing = open_store(folder, images)
    assert [image for image, _ in missing] == [*images[:2], images[3]]
    store.prune(limit)
    assert old.exists()
    store.prune(mixed.stat().st_size)
    assert (old.exists(), mixed.exists()) == (False, True)
    store.prune(mixed.stat().st_size - 1)
    assert not mixed.exists()
    (kept,) = shards(folder)
    assert store.get(images[2].image_id).eq(0).all()
    _, missing = open_store(folder, images[2:3])
    assert missing == []
    assert kept.stat().st_size < limit / 2
    store.prune(0, keep_used=False)
    assert shards(folder) == set()


def test_foreign_files_are_never_removed(tmp_path, folder, images):
    mine = cache(folder.parent, "one", images, 0)
    marked = cache(folder.parent, "marked", images, 900)
    foreign = [
        folder.parent / "thesis" / "results.bin",
        folder.parent / "thesis" / ".x.tmp",
        folder.parent / "thesis" / f"{'a' * 24}.safetensors",
        folder.parent / "notes.txt",
        marked.parent / "notes.txt",
        marked.parent / "model.safetensors",
        folder / "model.safetensors",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1, 1))
    store, _ = open_store(folder, images)
    store.prune(0)
    assert all(path.read_bytes() == b"x" * 1000 for path in foreign)
    assert (mine.exists(), marked.exists()) == (True, False)
    store.prune(mine.stat().st_size)  # foreign bytes do not count
    assert mine.exists()


def test_leftovers_of_killed_writers_are_removed(tmp_path, folder, images):
    path = cache(folder.parent, "one", images, 0)
    for name, age in (("old", STALE_SECONDS + 60), ("new", 5)):
        leftover = folder / f".{path.name}.{name}.tmp"
        leftover.touch()
        os.utime(leftover, (time.time() - age,) * 2)
    store, _ = open_store(folder, images)
    store.prune(1e9)
    assert [path.name.split(".")[-2] for path in folder.glob(".*.tmp")] == ["new"]


def test_the_estimate_is_not_below_the_bytes_on_disk(folder, images):
    path = write(folder, images)
    assert path.stat().st_size <= estimate_bytes((2, 3), torch.float32, 4) <= path.stat().st_size + 300
