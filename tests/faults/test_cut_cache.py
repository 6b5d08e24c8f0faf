"""A feature cache whose building was cut off: what is missing is computed, and that alone."""

import pytest

from src.callbacks.feature_cache import FeatureCache
from tests.faults.tiny import Run, differences
from tests.faults.whole_files import leftovers


class PowerCut(BaseException):
    """What no `except Exception` sees."""


class Watched(FeatureCache):
    """Notes the images whose features are computed; the power fails after so many shards."""

    def __init__(self, folder, shards=99):
        super().__init__(str(folder), dtype="fp32")
        self.shards, self.computed = shards, []

    def _features(self, trainer, shard):
        if not self.shards:
            raise PowerCut
        self.shards -= 1
        self.computed += [image.image_id for image, _ in shard]
        return super()._features(trainer, shard)


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.slow
def test_a_build_that_was_cut_off_goes_on_and_gives_the_same_bytes(
    tiny_checkpoint, flickr_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("src.callbacks.feature_cache.SHARD_IMAGES", 8)

    def run(name, cache):
        return Run(tiny_checkpoint, flickr_folder, tmp_path / name, more=(cache,), max_epochs=1)

    whole = run("whole run", Watched(tmp_path / "whole"))
    with pytest.raises(PowerCut):
        run("cut run", Watched(tmp_path / "cut", shards=2))
    assert len(shards(tmp_path / "cut")) == 2
    rest = Watched(tmp_path / "cut")
    resumed = run("resumed run", rest)
    splits = resumed.trainer.datamodule.splits
    assert len(rest.computed) == len(splits["train"]) + len(splits["val"]) - 2 * 8
    assert shards(tmp_path / "cut") == shards(tmp_path / "whole")
    assert leftovers(tmp_path / "cut") == []
    assert differences(whole.end(), resumed.end()) == []
