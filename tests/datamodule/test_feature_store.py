"""Features on disk: whole or missing, keyed by image content, verified, and pruned without touching foreign files."""

import os
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

from src.datamodule.feature_store import STALE_SECONDS, ShardedFeatures, content_digest, feature_key
from src.datamodule.images.decode import read_bytes
from tests.datamodule.tiny import write_images


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", 4)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "one"


def key(image, view=0, seed=0):
    return feature_key(content_digest(read_bytes(image.path, image.span)), image, view, seed)


def open_store(folder, images, views=1):
    store = ShardedFeatures(folder, views)
    store.read_shards()
    return store, store.add_images(images, views)


def write(folder, images, views=1, age=0.0):
    """Write one shard of what is missing, used `age` seconds ago, with the row's number as its features."""
    store, missing = open_store(folder, images, views)
    store.create()
    before = shards(folder)
    store.write_shard({key(*view): torch.full((2, 3), float(row)) for row, view in enumerate(missing)})
    (path,) = shards(folder) - before
    os.utime(path, (time.time() - age,) * 2)
    return path


def shards(folder):
    return set(folder.glob("*.safetensors"))


def test_another_store_reads_what_was_written(folder, images):
    write(folder, images)
    gone = replace(images[0], image_id="gone", path=images[0].path + ".gone")
    store, missing = open_store(folder, [*images, gone])
    assert missing == [(gone, 0)]
    for number, image in enumerate(images):
        assert torch.equal(store.get(image.image_id), torch.full((2, 3), float(number)))
    with pytest.raises(KeyError):
        store.get("gone")


def test_features_can_be_kept_in_the_memory_of_a_device(folder, images):
    write(folder, images)
    store, _ = open_store(folder, images)
    store.copy_to(torch.device("meta"))
    assert all(store.get(image.image_id).device.type == "meta" for image in images)


def test_each_view_has_features_of_its_own(folder, images):
    write(folder, images, views=2)
    store, missing = open_store(folder, images, views=3)
    assert missing == [(image, 2) for image in images]
    assert [int(store.get(images[1].image_id, view)[0, 0]) for view in (0, 1)] == [1, 5]


def test_equal_names_sizes_and_times_do_not_share_features(folder, tmp_path):
    """As `cats/0001.bmp` and `dogs/0001.bmp` of one archive."""
    found = []
    for subfolder, color in (("cats", 0), ("dogs", 255)):
        (image,) = write_images(tmp_path / subfolder, 1)
        Image.new("RGB", (12, 10), (color,) * 3).save(image.path, "BMP")
        os.utime(image.path, (315532800,) * 2)
        found.append(image)
    write(folder, found[:1])
    assert open_store(folder, found[1:])[1] == [(found[1], 0)]


def test_the_key_depends_on_content_box_and_random_crop_alone(images, tmp_path):
    image, renamed = images[0], replace(images[0], image_id="x")
    assert key(image) == key(renamed, seed=5)
    others = [key(images[1]), key(replace(image, box=(0, 0, 4, 4)))]
    crops = [key(image, 1), key(image, 2), key(image, 1, seed=1), key(renamed, 1)]
    assert len({key(image), *others, *crops}) == 7


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-5] + bytes([data[-5] ^ 4]) + data[-4:], lambda data: data[:-20], lambda data: b""],
    ids=["bit", "cut", "empty"],
)
def test_a_damaged_shard_is_removed_and_its_features_missing(folder, images, damage, caplog):
    path = write(folder, images)
    path.write_bytes(damage(path.read_bytes()))
    assert len(open_store(folder, images)[1]) == 4
    assert not path.exists()
    assert f"{path} is damaged" in caplog.text


def test_caches_unused_for_longest_are_pruned_first(tmp_path, images):
    ages = {"c": 900, "a": 600, "b": 300}
    oldest, older, young = (write(tmp_path / name, images, age=age) for name, age in ages.items())
    store, _ = open_store(tmp_path / "mine", images)
    size = young.stat().st_size
    store.prune(3 * size)
    assert oldest.exists()
    store.prune(1.5 * size)
    assert (oldest.exists(), older.exists(), young.exists()) == (False, False, True)


def test_shards_of_changed_images_are_pruned_from_the_folder_in_use(folder, images):
    old, mixed = write(folder, images[:2], age=900), write(folder, images[2:], age=1000)
    for image in (*images[:2], images[3]):
        Image.new("RGB", (5, 5), "red").save(image.path)
    store, missing = open_store(folder, images)
    assert [image for image, _ in missing] == [*images[:2], images[3]]
    store.prune(old.stat().st_size + mixed.stat().st_size)
    assert old.exists()
    store.prune(mixed.stat().st_size)
    assert (old.exists(), mixed.exists()) == (False, True)
    store.prune(0)
    assert store.get(images[2].image_id).eq(0).all()
    assert list(store.used_shards()) == [mixed]
    store.prune(0, keep_used=False)
    assert shards(folder) == set()


def test_foreign_files_are_never_removed(folder, images):
    mine, marked = write(folder, images), write(folder.parent / "marked", images, age=900)
    foreign = [folder.parent / "thesis" / name for name in ("results.bin", ".x.tmp", f"{'a' * 24}.safetensors")]
    foreign += [path / "notes.txt" for path in (folder.parent, marked.parent)]
    foreign += [path / "model.safetensors" for path in (folder, marked.parent)]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1, 1))
    leftovers = [folder / f".{mine.name}.{age}.tmp" for age in (STALE_SECONDS + 60, 5)]  # of killed writers
    for path, age in zip(leftovers, (STALE_SECONDS + 60, 5), strict=True):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    store, _ = open_store(folder, images)
    store.prune(mine.stat().st_size)  # foreign bytes do not count
    assert [path.exists() for path in leftovers] == [False, True]
    assert (mine.exists(), marked.exists()) == (True, False)
    store.prune(0)
    assert all(path.read_bytes() == b"x" * 1000 for path in foreign)
