"""A captioner is rebuilt from any saved form; a foreign checkpoint chooses nothing but plain settings."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from src.models import restore as restoring
from src.models.checkpoint import METADATA_KEY
from src.models.restore import open_captioner, rebuilt_settings, scoring_settings
from src.utils.errors import UserError
from tests.saved_run import save_run

FLICKR = "src.datamodule.flickr.FlickrDataModule"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "run"
    save_run(folder, tiny_checkpoint)
    return folder


def rewrite(run: Path, target: Path, model: dict | None = None, **changes) -> Path:
    """Copy the run's checkpoint with other metadata."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    metadata = content[METADATA_KEY] | changes
    config = metadata["config"]
    content[METADATA_KEY] = metadata | {"config": config | {"model": config["model"] | (model or {})}}
    torch.save(content, target)
    return target


def rejected(match, function, *args):
    with pytest.raises(UserError, match=match) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_folder_its_checkpoint_and_a_copied_file_give_the_trained_model(run, tiny_checkpoint, tmp_path):
    expected = save_run(tmp_path / "again", tiny_checkpoint).model.state_dict()
    copied = shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "copied.ckpt")
    for checkpoint in (run, run / "checkpoints" / "best.ckpt", copied):
        found = open_captioner(checkpoint)
        assert all(torch.equal(weight, expected[name]) for name, weight in found.model.state_dict().items())
        assert (found.generation["max_length"], found.generation["num_beams"]) == (12, 3)
        assert found.run_dir == (None if checkpoint == copied else run)
        assert not found.model.training


def test_a_saved_folder_generates_by_its_generation_config(tiny_checkpoint, tmp_path):
    found = open_captioner(tiny_checkpoint)
    assert (found.generation["max_length"], found.generation["num_beams"]) == (32, 4)
    assert (found.run_dir, found.trained) == (None, {})
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "saved")
    (folder / "generation_config.json").write_text('{"max_length": 9, "num_beams": 2, "no_repeat_ngram_size": 3}')
    found = open_captioner(folder)
    generation = {"max_length": 9, "num_beams": 2, "no_repeat_ngram_size": 3}
    assert generation.items() <= found.generation.items()
    model = scoring_settings(str(folder), None)["model"]
    assert (model["checkpoint"], model["generation"]) == (str(folder), found.generation)


@pytest.mark.parametrize("name", ["num_beams", "max_length"])
@pytest.mark.parametrize("value", [10**9, "four", 0.5, -1])
def test_generation_settings_out_of_range_or_of_another_type_are_one_line(run, tiny_checkpoint, tmp_path, name, value):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "saved")
    (folder / "generation_config.json").write_text(json.dumps({name: value}))
    rejected("checkpoint=", open_captioner, folder)
    rejected(name, open_captioner, rewrite(run, tmp_path / "x.ckpt", {"generation": {name: value}}))


def test_the_generation_length_of_the_data_is_kept(run, tmp_path):
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)[METADATA_KEY]
    config = content["config"] | {"datamodule": {"generation_length": 20}}
    changed = rewrite(run, tmp_path / "x.ckpt", {"generation": {"max_length": None}}, config=config)
    assert open_captioner(changed).generation["max_length"] == 20


def test_a_checkpoint_cannot_choose_the_model_class_and_unknown_settings_are_named(run, tmp_path):
    changed = rewrite(run, tmp_path / "x.ckpt", {"_target_": "os.system"})
    rejected(r"model\._target_=os\.system; expected a model class", open_captioner, changed)
    changed = rewrite(run, tmp_path / "x.ckpt", {"warp": 9, "renamed": None})
    rejected(r"model\.warp, which is not known here", open_captioner, changed)


@pytest.mark.parametrize("value", ["${oc.env:SECRET}", "a${now:}", {"x": {"_target_": "os.mkdir"}}, {"_args_": [1]},
                                   "???", [{"_target_": "os.mkdir"}], {1, 2}])  # fmt: skip
def test_interpolations_and_classes_in_a_checkpoint_are_rejected(value, monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    data = {"_target_": FLICKR, "data_dir": value}
    line = rejected("nothing of it was built", rebuilt_settings, {"datamodule": data}, "x.ckpt")
    assert "hidden" not in line


def test_a_checkpoint_can_neither_download_nor_write_nor_add_settings():
    data = {"_target_": FLICKR, "data_dir": "data/x", "download": True, "unheard_of": 1, "split_seed": 3}
    config = {"datamodule": data, "seed": 1, "trainer": {"precision": "16-mixed", "default_root_dir": "/x"},
              "callbacks": {"x": {"_target_": "os.mkdir"}}, "paths": {"log_dir": "/x"}}  # fmt: skip
    found = rebuilt_settings(config, "x.ckpt")
    assert found == {
        "seed": 1,
        "datamodule": {"_target_": FLICKR, "data_dir": "data/x", "split_seed": 3}
        | ({"download": False} if "download" in found["datamodule"] else {}),
    }
    config = {"datamodule": data | {"data_dir": "https://x/y"}, "trainer": {"precision": "bf16-mixed"}}
    found = rebuilt_settings(config, "x.ckpt")
    assert "data_dir" not in found["datamodule"]
    assert found["trainer"] == {"precision": "bf16-mixed"}


@pytest.mark.parametrize(
    "target",
    ["os.system", "src.datamodule.images.decode.os.mkdir", "src.datamodule.nothing.FlickrDataModule",
     "src.datamodule.flickr.Nothing", "tests.datamodule.tiny.SyntheticDataModule", 7, None],
)  # fmt: skip
def test_only_our_data_modules_are_built_from_a_checkpoint(target):
    config = {"datamodule": {"_target_": target}}
    rejected("a datamodule class of this project", rebuilt_settings, config, "x.ckpt")


def test_a_base_that_was_moved_is_named_and_can_be_given_and_another_one_is_rejected(tiny_checkpoint, tmp_path):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    save_run(tmp_path / "run", base)
    renamed = base.rename(tmp_path / "elsewhere")
    rejected(r"was trained on .*base, which does not exist; .* set base=", open_captioner, tmp_path / "run")
    found = open_captioner(tmp_path / "run", base=str(renamed))
    assert found.base == str(renamed)
    found.model.save_pretrained(renamed)  # with the trained weights
    rejected("expected the same base weights; set checkpoint=", open_captioner, tmp_path / "run", str(renamed))


def test_a_project_that_was_moved_as_a_whole_finds_its_base(tiny_checkpoint, tmp_path, monkeypatch):
    then, now = tmp_path / "then", tmp_path / "now"
    base = shutil.copytree(tiny_checkpoint, then / "src" / "demo" / "tiny")
    save_run(then / "logs" / "run", base)
    then.rename(now)
    monkeypatch.setattr(restoring, "ROOT", now)
    assert open_captioner(now / "logs" / "run").base == str(now / "src" / "demo" / "tiny")
    file = now / "logs" / "run" / "checkpoints" / "best.ckpt"
    named = rewrite(file.parents[1], now / "x.ckpt", base=restoring.PROJECT + "/src/demo/tiny")
    assert open_captioner(named).base == str(now / "src" / "demo" / "tiny")
    assert scoring_settings(file, file)["model"]["checkpoint"] == str(now / "src" / "demo" / "tiny")
