"""A run that is stored with the project: small, movable, complete enough to view and to evaluate."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from src.demo.transfer import main, transfer
from src.models.checkpoint import FORMAT, METADATA_KEY, read_checkpoint
from src.report.run_files import read_run
from src.utils.errors import UserError


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A made-up run folder with everything that a real one has, in a made-up project."""
    monkeypatch.setattr("src.demo.transfer.ROOT", tmp_path)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "csv").mkdir()
    config = {"model": {"checkpoint": f"{tmp_path}/src/demo/vit_gpt2_tiny"}, "dirs": [str(run)]}
    (run / "config_resolved.yaml").write_text(f"root_dir: {tmp_path}\noutput_dir: {run}\n")
    (run / "run.json").write_text(json.dumps({"command": f"train.py data={tmp_path}/data"}))
    (run / "metrics.json").write_text('{"test/cider_d": 2.0}')
    (run / "csv" / "metrics.csv").write_text("epoch,val/loss\n0,1.5\n")
    content = {"state_dict": {"weight": torch.ones(3)}, "optimizer_states": [{"big": torch.zeros(10**5)}]}
    content |= {"epoch": 1, "global_step": 2, "pytorch-lightning_version": "2.6.0", "callbacks": {}}
    content[METADATA_KEY] = {"format": FORMAT, "base": "tiny", "base_sha256": "0", "config": config}
    torch.save(content, run / "checkpoints" / "best.ckpt")
    paths = [*(f"{tmp_path}/data/{n}.jpg" for n in range(3)), "/elsewhere/9.jpg"]
    rows = [{"image_id": path[-5:], "path": path, "caption": "a cat"} for path in paths]
    (tmp_path / "data").mkdir()
    for row in rows[:3]:
        Image.new("RGB", (8, 8)).save(row["path"])
    with (run / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with SummaryWriter(str(run / "tensorboard")) as writer:
        writer.add_scalar("val/loss", 1.5, 0)
        writer.add_histogram("weights/encoder/x", torch.arange(9.0), 0)
        writer.add_histogram("gradients/encoder/x", torch.arange(9.0), 0)
    return run


def test_what_is_viewed_is_copied_without_optimizer_and_gradients(run, tmp_path):
    out = transfer(run, "kept", images=2)

    content = read_checkpoint(out / "checkpoints" / "best.ckpt")
    kept = read_run(out)
    assert torch.equal(content["state_dict"]["weight"], torch.ones(3))
    assert "optimizer_states" not in content
    assert kept.metrics == {"test/cider_d": 2.0}
    assert [Path(row.path).is_file() for row in kept.predictions] == [True, True, True, False]
    assert [path.name for path in sorted((out / "Images").iterdir())] == ["0.jpg", "1.jpg"]
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["val/loss"]
    assert events.Tags()["histograms"] == ["weights/encoder/x"]


def test_config_and_checkpoint_hold_no_path_of_this_machine(run, tmp_path):
    out = transfer(run, "src/kept", images=0)

    metadata = read_checkpoint(out / "checkpoints" / "best.ckpt")[METADATA_KEY]
    rows = read_run(out).predictions
    inside = "${oc.env:PROJECT_ROOT}/src/kept"
    config = (out / "config_resolved.yaml").read_text()
    assert config == f"root_dir: ${{oc.env:PROJECT_ROOT}}\noutput_dir: {inside}\n"
    assert metadata["config"]["dirs"] == [inside]
    assert str(tmp_path) not in (out / "run.json").read_text() + str(metadata)
    assert os.path.normpath(rows[2].path) == f"{tmp_path}/data/2.jpg"
    assert not Path(rows[3].path).is_file()


def test_unfinished_runs_and_foreign_folders_are_rejected(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        transfer(run, "mine")
    assert (tmp_path / "mine" / "thesis.tex").is_file()
    out = transfer(run, "kept")
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"lacks metrics.json; expected the folder of a finished"):
        main([f"run_dir={run}", f"out={out}"])
    assert (out / "metrics.json").is_file()
