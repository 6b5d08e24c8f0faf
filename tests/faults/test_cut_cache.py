"""A feature cache whose building was cut off, or whose pictures changed: what is missing is made, and that alone."""

import pytest
from PIL import Image

from src.callbacks.feature_cache import FeatureCache
from src.demo.synthetic.datamodules import write_scenes
from tests.faults.tiny import Run, differences
from tests.faults.whole_files import leftovers


class PowerCut(BaseException):
    """What no `except Exception` sees."""


class Watched(FeatureCache):
    """Notes the pictures whose features are computed; the power fails after so many shards."""

    def __init__(self, folder, shards=99):
        super().__init__(str(folder), dtype="fp32")
        self.shards, self.computed = shards, []

    def _features(self, trainer, shard):
        if not self.shards:
            raise PowerCut
        self.shards -= 1
        self.computed += [image.image_id for image, _ in shard]
        return super()._features(trainer, shard)


@pytest.fixture
def run(tiny_checkpoint, tmp_path, monkeypatch):
    """Runs an epoch over 40 pictures in shards of 8."""
    monkeypatch.setattr("src.callbacks.feature_cache.SHARD_IMAGES", 8)
    write_scenes(tmp_path / "flickr", 40, size=32)
    numbers = iter(range(9))

    def start(cache):
        return Run(
            tiny_checkpoint,
            tmp_path / "flickr",
            tmp_path / f"run {next(numbers)}",
            more=(cache,),
            max_epochs=1,
        )

    return start


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_a_build_that_was_cut_off_goes_on_and_gives_the_same_bytes(run, tmp_path):
    whole = run(Watched(tmp_path / "whole"))
    with pytest.raises(PowerCut):
        run(Watched(tmp_path / "cut", shards=2))
    assert len(shards(tmp_path / "cut")) == 2
    rest = Watched(tmp_path / "cut")
    resumed = run(rest)
    splits = resumed.trainer.datamodule.splits
    assert len(rest.computed) == len(splits["train"]) + len(splits["val"]) - 2 * 8
    assert shards(tmp_path / "cut") == shards(tmp_path / "whole")
    assert leftovers(tmp_path / "cut") == []
    assert differences(whole.end(), resumed.end()) == []


def test_a_damaged_shard_alone_is_made_again(run, tmp_path):
    run(Watched(tmp_path / "cache"))
    before = shards(tmp_path / "cache")
    shard = next((tmp_path / "cache").rglob("*.safetensors"))
    shard.write_bytes(before[shard.name][:-100])
    again = Watched(tmp_path / "cache")
    run(again)
    assert 0 < len(again.computed) <= 8
    assert shards(tmp_path / "cache") == before


def test_a_picture_that_changed_alone_is_computed_again(run, tmp_path):
    first = run(Watched(tmp_path / "cache"))
    before = shards(tmp_path / "cache")
    data = first.trainer.datamodule
    image = data.splits["train"][3]
    old = data.features.get(image.image_id).clone()
    Image.new("RGB", (33, 31), (200, 30, 30)).save(image.path)
    again = Watched(tmp_path / "cache")
    second = run(again)
    assert again.computed == [image.image_id]
    after = shards(tmp_path / "cache")
    assert after.keys() > before.keys()
    assert {name: after[name] for name in before} == before
    assert not second.trainer.datamodule.features.get(image.image_id).equal(old)
