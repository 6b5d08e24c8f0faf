"""The backbone is computed once per image, and the run is the one that pixels would have given."""

import errno
import os
import shutil
from collections import Counter, namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from src.callbacks import feature_cache
from src.callbacks.feature_cache import FeatureCache
from src.datamodule.feature_store import SUBFOLDER
from src.models.caption_model import CaptionModel
from src.models.restore import open_captioner
from tests.tiny import make, trainer

IMAGES = 36  # of train and val


@pytest.fixture
def computed(monkeypatch):
    """Count the images whose backbone was computed, without the blank one that shows the shape."""
    counts = Counter()
    inside = CaptionModel.backbone_features

    def count(self, pixels):
        counts["images"] += len(pixels) if pixels.any() else 0
        return inside(self, pixels)

    monkeypatch.setattr(CaptionModel, "backbone_features", count)
    return counts


@pytest.fixture
def run(tmp_path, tiny_checkpoint, flickr_folder):
    """Fit an epoch with a cache in tmp_path/cache: `run(views=2)` returns data and losses."""

    def fit(
        images=flickr_folder, checkpoint=tiny_checkpoint, model=None, data=None, callbacks=(), limit=1.0, **settings
    ):
        module, datamodule = make(checkpoint, images, model, **(data or {}))
        cache = FeatureCache(str(tmp_path / "cache"), **settings)
        fitted = trainer(tmp_path, cache, *callbacks, enable_progress_bar=bool(callbacks), limit_train_batches=limit)
        fitted.fit(module, datamodule)
        return datamodule, {name: float(value) for name, value in fitted.callback_metrics.items()}

    return fit


def folders(tmp_path):
    return sorted((tmp_path / "cache").glob(f"{SUBFOLDER}/*"))


def pixel_lines(caplog):
    return [record.message for record in caplog.records if "pixels" in record.message]


@pytest.mark.slow
def test_the_losses_are_those_of_pixels_and_a_second_run_computes_nothing(run, tmp_path, computed):
    _, pixels = run(enabled=False)
    assert folders(tmp_path) == []
    computed.clear()
    data, first = run()
    again, second = run()
    assert computed["images"] == IMAGES
    assert first == second == pixels
    assert {"train/loss", "val/loss"} <= first.keys()
    image = data.splits["val"][0].image_id
    assert torch.equal(data.features.get(image), again.features.get(image))


def test_images_of_equal_names_sizes_and_times_keep_their_own_features(run, tmp_path):
    rng, images = np.random.default_rng(0), tmp_path / "images"
    names = [f"{folder}/{number}.bmp" for folder in ("cats", "dogs") for number in range(20)]
    for name in names:
        path = images / "Images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
        os.utime(path, (315532800, 315532800))
    (images / "captions.txt").write_text("\n".join(["image,caption", *(f"{name},image of {name}" for name in names)]))
    _, pixels = run(images, enabled=False)
    for _ in ("computed", "read from disk"):
        data, cached = run(images)
        assert cached == pixels
    found = {float(data.features.get(image.image_id).sum()) for image in data.splits["train"]}
    assert len(found) == len(data.splits["train"])


def test_only_what_a_shorter_run_reads_is_computed(run, computed):
    _, pixels = run(enabled=False, limit=1)
    computed.clear()
    _, cached = run(limit=1)
    assert computed["images"] == 8 + 4  # a batch of train, and val
    assert cached == pixels
    run()
    assert computed["images"] == IMAGES


def test_each_stage_adds_the_split_that_it_reads(tmp_path, tiny_checkpoint, flickr_folder, computed):
    module, data = make(tiny_checkpoint, flickr_folder)
    scored = trainer(tmp_path, FeatureCache(str(tmp_path / "cache")))
    scored.validate(module, data, verbose=False)
    assert computed["images"] == 4
    scored.test(module, data, verbose=False)
    assert computed["images"] == 8
    scored.fit(module, data)
    assert computed["images"] == 40
    assert len(folders(tmp_path)) == 1


@pytest.mark.slow
def test_precision_and_frozen_weights_have_a_folder_of_their_own(run, tmp_path, tiny_checkpoint, computed):
    data, _ = run(dtype="fp32")
    assert data.features.get(data.splits["val"][0].image_id).dtype == torch.float32
    data, _ = run(dtype="bf16")
    assert data.features.get(data.splits["val"][0].image_id).dtype == torch.bfloat16
    assert len(folders(tmp_path)) == 2
    for name, layer in (("frozen", 0), ("trained", 2)):
        found = open_captioner(tiny_checkpoint)
        weight = found.model.get_parameter(f"encoder.layers.{layer}.layernorm_before.bias")
        torch.nn.init.constant_(weight, 0.1)
        other = shutil.copytree(tiny_checkpoint, tmp_path / name)
        found.model.save_pretrained(other)
        run(checkpoint=other, dtype="fp32")
        assert len(folders(tmp_path)) == 3, name
    assert computed["images"] == 3 * IMAGES


@pytest.mark.slow
def test_view_0_is_the_image_and_the_others_are_crops_by_the_seed(run, computed):
    plain, _ = run()
    data, _ = run(views=3)
    trained = len(data.splits["train"])
    assert computed["images"] == IMAGES + 2 * trained  # val has no views, and view 0 was there
    store, image = data.features, data.splits["train"][0].image_id
    views = [store.get(image, view) for view in range(3)]
    assert torch.equal(views[0], plain.features.get(image))
    assert not torch.equal(views[1], views[0])
    assert not torch.equal(views[2], views[1])
    with pytest.raises(KeyError):
        store.get(data.splits["val"][0].image_id, 1)
    run(views=3, data={"seed": 1})
    assert computed["images"] == IMAGES + 4 * trained


@pytest.mark.parametrize(
    ("problem", "line"),
    [("disk", "has 0.00 free"), ("limit", "over size_limit_gb=1e-09"), ("late", "No space left on device")],
)
@pytest.mark.slow
def test_without_room_pixels_are_read_and_one_line_says_so(run, tmp_path, monkeypatch, caplog, problem, line):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    _, pixels = run(enabled=False)
    caplog.clear()
    usage = namedtuple("usage", "total used free")(10, 0, 10)
    if problem == "disk":
        monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: usage)
    if problem == "late":
        monkeypatch.setattr(feature_cache.ShardedFeatures, "write_shard", full)
    data, metrics = run(size_limit_gb=1e-9 if problem == "limit" else 100)
    assert data.features is None
    assert metrics == pixels
    (found,) = pixel_lines(caplog)
    assert line in found
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("settings", [{"data": {"augment": True}}, {"model": {"train": "full"}}])
@pytest.mark.slow
def test_there_is_no_cache_of_what_changes(run, tmp_path, settings, caplog):
    caplog.set_level("INFO")
    data, _ = run(**settings)
    assert data.features is None
    assert folders(tmp_path) == []
    assert bool(pixel_lines(caplog)) == ("data" in settings)


@pytest.mark.slow
def test_an_image_whose_end_is_missing_is_skipped_and_counted(run, tmp_path, flickr_folder):
    """Its header is sound, so that it is found out when it is decoded."""
    images = shutil.copytree(flickr_folder, tmp_path / "images")
    noise = torch.randint(256, (40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole, _ = run(images)
    image = whole.splits["val"][0]
    Image.fromarray(noise.numpy()).save(image.path)
    with open(image.path, "r+b") as file:
        file.truncate(900)
    data, _ = run(images)
    assert list(data.unreadable) == [image.image_id]
    with pytest.raises(KeyError):
        data.features.get(image.image_id)
