"""A second stage of self-critical training starts from the weights, data and model of a run."""

import json

import pytest
from omegaconf import OmegaConf

from src.metrics.cider import CiderReward
from src.utils.run_folder import run_folder
from tests.tasks.running import PROBE, Probe, run_second_stage, validations


@pytest.mark.slow
def test_it_starts_from_a_run_and_has_its_settings(finished, tmp_path):
    folder = tmp_path / "logs" / "train" / "runs" / "second"
    metrics = run_second_stage(folder, finished.folder, "trainer.max_epochs=2", PROBE)
    assert Probe.seen["sanity"] == pytest.approx(min(validations(finished.folder)))  # of its best weights
    assert (folder / "splits.csv").read_text() == (finished.folder / "splits.csv").read_text()
    before, config = (OmegaConf.load(run / "config_resolved.yaml") for run in (finished.folder, folder))
    assert config.model.optimizer.lr == pytest.approx(0.1 * before.model.optimizer.lr)
    assert (config.datamodule.batch_size, config.datamodule.split_seed) == (8, 3)
    assert json.loads((folder / "metrics.json").read_text())["scst/signature"] == CiderReward.signature(5)
    assert metrics["train/reward"] >= 0
    assert "val/cider_d" in metrics

    # the same command with the new run's folder resumes it there; with the first run's it begins another
    first, second = (run_folder(str(tmp_path), "train", str(run), "scst") for run in (finished.folder, folder))
    assert (second, first == str(finished.folder)) == (str(folder), False)
    run_second_stage(folder, folder, "trainer.max_epochs=3")
    assert len(validations(folder)) == 3
    assert OmegaConf.load(folder / "config_resolved.yaml").model == config.model
