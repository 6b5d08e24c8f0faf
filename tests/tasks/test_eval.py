"""What a run of `eval.py` does: the numbers of the training run again, from a file and nothing else."""

import pytest
from omegaconf import OmegaConf

from src.demo.synthetic.datamodules import write_scenes
from src.export import export
from src.tasks.eval import with_training_config
from src.utils.errors import UserError
from tests.tasks.running import captions, rows, run_eval
from tests.utils.composing import job


def scores(metrics):
    return {name: value for name, value in metrics.items() if name.startswith(("test/", "zero_shot/test/"))}


@pytest.fixture(scope="module")
def again(finished):
    """`eval.py ckpt_path=last` and nothing else: folder and metrics."""
    folder = finished.folder.parents[2] / "eval" / "runs" / "a"
    return folder, run_eval(folder, "ckpt_path=last")


@pytest.mark.slow
def test_eval_after_training_gives_the_same_numbers_and_captions(finished, again):
    folder, metrics = again
    assert metrics["test/loss"] == pytest.approx(finished.metrics["test/loss"], abs=1e-4)
    assert scores(metrics) == pytest.approx(scores(finished.metrics), abs=1e-4)
    assert captions(folder) == captions(finished.folder)
    assert captions(folder, "zero_shot_caption") == captions(finished.folder, "zero_shot_caption")
    left = {path.name for path in folder.iterdir()}
    assert {"config_resolved.yaml", "metrics.json", "predictions.csv", "splits.csv", "skipped.csv", "report.html",
            "run.json", "attention.json"} <= left  # fmt: skip
    assert rows(folder / "splits.csv") == rows(finished.folder / "splits.csv")


def test_another_data_set_and_other_settings_from_the_command_line(finished, tmp_path):
    """The model stays that of the run; a path may hold what Hydra's grammar wants escaped."""
    folder = tmp_path / "other (1), synthetic"
    write_scenes(folder, 20, "plain", seed=3, size=32)
    escaped = str(folder).replace(" ", "\\ ").replace("(", "\\(").replace(")", "\\)").replace(",", "\\,")
    words = (
        f"datamodule.data_dir={escaped}",
        "datamodule.split_ratios=[0.5,0.25,0.25]",
        "model.generation.max_length=5",
    )
    metrics = run_eval(tmp_path / "eval", f"ckpt_path={finished.folder}", *words)
    assert metrics["data/test_images"] == 5
    assert metrics["test/loss"] != finished.metrics["test/loss"]
    assert {row["path"].rpartition("/Images/")[0] for row in rows(tmp_path / "eval" / "predictions.csv")} == {
        str(folder)
    }


@pytest.fixture
def trained():
    """What a checkpoint says of its run."""
    return {
        "seed": 5, "datamodule": {"data_dir": "there", "batch_size": 3}, "model": {"generation": {"num_beams": 1}},
        "trainer": {"precision": "32-true"}, "task_name": "train",
    }  # fmt: skip


def test_data_model_seed_and_precision_are_those_of_training(tmp_path, trained):
    with job(tmp_path, name="eval") as config:
        merged = with_training_config(config, trained)
        fp16 = with_training_config(config, trained | {"trainer": {"precision": "16-mixed"}})
    assert fp16.trainer.precision is None  # fp16 stays with its GPU
    assert OmegaConf.to_container(merged.datamodule) == trained["datamodule"]
    assert OmegaConf.to_container(merged.model) == trained["model"]
    assert (merged.seed, merged.trainer.precision, merged.task_name) == (5, "32-true", "eval")
    assert merged.callbacks == config.callbacks


def test_the_command_line_has_the_last_word(tmp_path, trained):
    words = ("seed=6", "datamodule.batch_size=4", "model=vit_gpt2_tiny", "trainer.precision=bf16-mixed")
    with job(tmp_path, *words, name="eval") as config:
        merged = with_training_config(config, trained)
        assert merged.model == config.model
    assert (merged.seed, merged.trainer.precision) == (6, "bf16-mixed")
    assert OmegaConf.to_container(merged.datamodule) == {"data_dir": "there", "batch_size": 4}


def test_a_predictions_file_is_scored_again_without_a_model(finished, tmp_path, monkeypatch):
    def no_model(*args):
        raise AssertionError("no model is needed")

    monkeypatch.setattr("src.tasks.eval.build_data", no_model)
    metrics = run_eval(tmp_path / "eval", f"predictions={finished.folder / 'predictions.csv'}")
    assert metrics == pytest.approx(scores(finished.metrics), abs=1e-12)
    assert rows(tmp_path / "eval" / "predictions.csv") == rows(finished.folder / "predictions.csv")
    assert (tmp_path / "eval" / "report.html").is_file()


def test_an_exported_folder_gets_the_scores_of_its_checkpoint(finished, again, flickr_folder, tmp_path):
    folder = export(finished.folder, tmp_path / "exported")
    trained = OmegaConf.load(finished.folder / "config_resolved.yaml").datamodule
    same = {name: trained[name] for name in ("split_ratios", "split_seed")}
    words = [f"datamodule.{name}={value}" for name, value in same.items()]
    metrics = run_eval(tmp_path / "eval", f"ckpt_path={folder}", f"datamodule.data_dir={flickr_folder}", *words)
    assert not any(name.startswith("zero_shot/") for name in metrics)
    expected = {name: value for name, value in again[1].items() if name.startswith("test/") and "_gain" not in name}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-3)


def test_a_whole_folder_can_be_the_test_set(finished, flickr_folder, tmp_path, caplog):
    """Here that of the training, of which most images were trained on: that is counted and logged."""
    words = ("datamodule.split_ratios=[0,0,1]", "zero_shot=false")
    metrics = run_eval(tmp_path / "eval", f"ckpt_path={finished.folder}", *words)
    assert metrics["data/test_images"] == 40
    assert metrics["data/test_images_trained_on"] == finished.metrics["data/train_images"]
    assert "of 40 test images have the names of images that the checkpoint was trained on" in caplog.text


def test_nothing_to_score_is_one_line(finished, tmp_path):
    with pytest.raises(UserError, match="ckpt_path is not set; expected a checkpoint to score"):
        run_eval(tmp_path / "none")
    with pytest.raises(UserError, match=r"no test image to score.*set datamodule.split_ratios=\[0,0,1\]"):
        run_eval(tmp_path / "eval", f"ckpt_path={finished.folder}", "datamodule.split_ratios=[0.5,0.5,0]")
