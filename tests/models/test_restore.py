"""Whatever a captioner is kept as, it comes back as it was."""

import shutil
from pathlib import Path

import pytest
import torch

from src.models import restore as restoring
from src.models.checkpoint import METADATA_KEY
from src.models.restore import open_captioner, restore
from src.utils.errors import UserError
from tests.saved_run import save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "run"
    save_run(folder, tiny_checkpoint)
    return folder


def rewrite(run: Path, target: Path, **changes) -> Path:
    """The run's checkpoint with other values under the project's key."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content[METADATA_KEY] |= changes
    torch.save(content, target)
    return target


def test_a_run_folder_its_checkpoint_and_a_copy_of_the_file_give_the_trained_model(
    run, tiny_checkpoint, tmp_path
):
    expected = save_run(tmp_path / "again", tiny_checkpoint).model.state_dict()
    copied = shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "copied.ckpt")
    for checkpoint in (run, run / "checkpoints" / "best.ckpt", run / "checkpoints", copied):
        found = open_captioner(checkpoint)
        assert all(torch.equal(weight, expected[name]) for name, weight in found.model.state_dict().items())
        assert (found.max_length, found.num_beams) == (12, 3)
        assert found.run_dir == (None if checkpoint == copied else run)
        assert not found.model.training
    weights = restore(run).model.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def test_a_saved_folder_is_asked_as_its_generation_config_says(tiny_checkpoint, tmp_path):
    found = open_captioner(tiny_checkpoint)
    assert (found.max_length, found.num_beams, found.run_dir, found.trained) == (32, 4, None, {})
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "saved")
    (folder / "generation_config.json").write_text('{"max_length": 9, "num_beams": 2}')
    found = open_captioner(folder)
    assert (found.max_length, found.num_beams) == (9, 2)


def test_the_length_of_the_data_set_is_kept(run, tmp_path):
    config = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)[METADATA_KEY]["config"]
    config = config | {
        "model": config["model"] | {"max_length": None},
        "datamodule": {"generation_length": 20},
    }
    assert open_captioner(rewrite(run, tmp_path / "x.ckpt", config=config)).max_length == 20


def test_a_file_cannot_choose_what_is_built(run, tmp_path):
    config = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)[METADATA_KEY]["config"]
    config = config | {"model": config["model"] | {"_target_": "os.system"}}
    with pytest.raises(UserError, match=r"is of a os\.system; expected src\.models"):
        open_captioner(rewrite(run, tmp_path / "x.ckpt", config=config))


def test_a_setting_of_another_release_is_named(run, tmp_path):
    config = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)[METADATA_KEY]["config"]
    config = config | {"model": config["model"] | {"warp": 9}}
    with pytest.raises(UserError, match=r"model\.warp, which is not known here"):
        open_captioner(rewrite(run, tmp_path / "x.ckpt", config=config))


def test_a_base_that_is_gone_is_told_in_one_line_and_can_be_given(tiny_checkpoint, tmp_path):
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    save_run(tmp_path / "run", base)
    moved = base.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"was trained on .*base, which is gone; .* set base=") as caught:
        open_captioner(tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert open_captioner(tmp_path / "run", base=str(moved)).base == str(moved)


def test_another_base_is_refused(run, tiny_checkpoint, tmp_path):
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    found = open_captioner(tiny_checkpoint)
    with torch.no_grad():
        found.model.decoder.transformer.wte.weight += 1
    found.model.save_pretrained(other)
    with pytest.raises(UserError, match=r"trained on .*; expected the same base weights; set checkpoint="):
        open_captioner(run, base=str(other))


def test_a_project_that_was_moved_as_a_whole_finds_its_base(tiny_checkpoint, tmp_path, monkeypatch):
    then, now = tmp_path / "then", tmp_path / "now"
    base = shutil.copytree(tiny_checkpoint, then / "src" / "demo" / "tiny")
    save_run(then / "logs" / "run", base)
    config = torch.load(then / "logs/run/checkpoints/best.ckpt", weights_only=True)[METADATA_KEY]["config"]
    rewrite(
        then / "logs/run",
        then / "logs/run/checkpoints/best.ckpt",
        config=config | {"paths": {"root_dir": str(then)}},
    )
    then.rename(now)
    monkeypatch.setattr(restoring, "ROOT", now)
    assert open_captioner(now / "logs" / "run").base == str(now / "src" / "demo" / "tiny")


def test_a_run_that_was_made_movable_finds_its_base(run, tiny_checkpoint, tmp_path, monkeypatch):
    shutil.copytree(tiny_checkpoint, tmp_path / "src" / "tiny")
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)[METADATA_KEY]
    base = restoring.PROJECT + "/src/tiny"
    config = content["config"] | {"model": content["config"]["model"] | {"checkpoint": base}}
    monkeypatch.setattr(restoring, "ROOT", tmp_path)
    assert open_captioner(rewrite(run, tmp_path / "x.ckpt", config=config, base=base)).base == str(
        tmp_path / "src/tiny"
    )


@pytest.mark.parametrize(
    ("checkpoint", "told"),
    [("nowhere.ckpt", "does not exist"), ("empty_run", "holds no checkpoint"), ("./nothing", "does not exist"),
     ("notes.txt", "is damaged|more than tensors")],
)  # fmt: skip
def test_what_is_no_captioner_is_told_in_one_line(checkpoint, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty_run").mkdir()
    (tmp_path / "empty_run" / "run.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("no checkpoint")
    with pytest.raises(UserError, match=told) as caught:
        open_captioner(checkpoint)
    assert str(caught.value).startswith("checkpoint=")
    assert "\n" not in str(caught.value)


def test_restore_wants_a_run(tiny_checkpoint):
    with pytest.raises(UserError, match="is not of a run"):
        restore(tiny_checkpoint)
