"""What a run of `train.py` does and leaves: files, weights, numbers that agree, the way back to it."""

import json
import math
import os
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.demo.synthetic.datamodules import write_scenes
from src.models.checkpoint import METADATA_KEY
from src.report.run_files import read_predictions
from src.tasks.train import write_reports
from src.utils.errors import Stopped, UserError
from tests.tasks.conftest import MAIN
from tests.tasks.running import (
    PROBE,
    Probe,
    captions,
    rows,
    run_train,
    same,
    same_images_in_all_splits,
    saved_weights,
    validations,
)
from tests.utils.composing import composed

LAST_BLOCKS = ("encoder.encoder.layer.2.", "decoder.transformer.h.2.")


def test_the_run_folder_is_complete(finished):
    names = {path.relative_to(finished.folder).as_posix() for path in finished.folder.rglob("*")}
    assert {
        "config_resolved.yaml", "metrics.json", "predictions.csv", "splits.csv", "skipped.csv", "report.html",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "csv/metrics.csv", "losses.png", "run.json", "attention.json",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith(".tmp")]
    about = json.loads((finished.folder / "run.json").read_text())
    assert (about["status"], about["device"], about["precision"]) == ("finished", "cpu", "32-true")
    text = (finished.folder / "config_resolved.yaml").read_text()
    assert "${" not in text
    checkpoint = torch.load(finished.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint[METADATA_KEY]["config"] == OmegaConf.to_container(OmegaConf.create(text))
    report = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert all(row.image_id in report for row in read_predictions(finished.folder / "predictions.csv"))


def test_tensorboard_has_the_scores_of_both_models_and_the_settings(finished):
    events = EventAccumulator(str(finished.folder / "tensorboard")).Reload()
    assert len(events.Scalars("test/loss")) == 1
    scores = {name: events.Scalars(f"test/{name}")[-1].value for name in ("cider_d", "cider_d_base", "loss_base")}
    expected = {"cider_d": "test/cider_d", "cider_d_base": "zero_shot/test/cider_d", "loss_base": "zero_shot/test/loss"}
    assert scores == pytest.approx({name: finished.metrics[key] for name, key in expected.items()})
    assert {tag.split("/")[0] for tag in events.Tags()["scalars"]} == {"test", "train", "val"}
    (settings,) = (value for tag, value in events.PluginTagToContent("hparams").items() if "session_start" in tag)
    assert b"model.optimizer.lr" in settings


def test_metrics_are_flat_finite_and_named_as_logged(finished):
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics == finished.metrics
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in metrics.values())
    both = ("loss", "cider_d", "cider_d_low", "cider_d_high", "bleu_4", "rouge_l", "distinct_fraction")
    assert {"train/loss", "val/loss", "val/loss_best", "val/cider_d", "time/fit_seconds"} <= metrics.keys()
    assert {f"{split}/{name}" for split in ("test", "zero_shot/test") for name in both} <= metrics.keys()
    assert metrics["test/loss"] < metrics["zero_shot/test/loss"]
    counts = {name: metrics[f"data/{name}"] for name in ("train_images", "val_images", "test_images")}
    assert counts == {"train_images": 32, "val_images": 4, "test_images": 4}
    assert (metrics["data/skipped_rows"], metrics["data/unreadable_images"]) == (0, 0)


def test_every_image_is_in_one_split_and_each_test_image_has_a_prediction(finished, flickr_folder):
    splits = {row["image_id"]: row["split"] for row in rows(finished.folder / "splits.csv")}
    captions_of: dict[str, list[str]] = {}
    for row in rows(flickr_folder / "captions.txt"):
        captions_of.setdefault(row["image"], []).append(row["caption"])
    assert splits.keys() == captions_of.keys()
    assert len(rows(finished.folder / "splits.csv")) == len(splits)
    predictions = rows(finished.folder / "predictions.csv")
    assert {row["image_id"] for row in predictions} == {n for n, split in splits.items() if split == "test"}
    for row in predictions:
        assert [row[f"reference_{k}"] for k in range(1, 6)] == captions_of[row["image_id"]]
        assert 0 <= float(row["bleu_4"]) <= 1
        assert 0 <= float(row["zero_shot_cider_d"]) <= 10
    assert list(predictions[0])[:4] == ["image_id", "path", "caption", "zero_shot_caption"]
    header = (finished.folder / "skipped.csv").read_text().splitlines()
    assert header == ["line,image_id,reason,detail"]


def test_the_checkpoint_holds_what_trains_by_the_names_of_save_pretrained(finished, tiny_checkpoint):
    saved = saved_weights(finished.folder / "checkpoints" / "best.ckpt")
    with safe_open(tiny_checkpoint / "model.safetensors", "pt") as file:
        names = list(file.keys())
        last_blocks = {name for name in names if name.startswith(LAST_BLOCKS)}
        shapes = {name: list(file.get_slice(name).get_shape()) for name in last_blocks}
    assert saved.keys() == last_blocks
    assert {name: list(weight.shape) for name, weight in saved.items()} == shapes


def test_every_trained_weight_is_updated_and_no_other(finished):
    before, after, trained = (finished.seen[name] for name in ("before", "after", "trained"))
    updated = {name for name in before if not torch.equal(before[name], after[name])}
    assert updated <= trained
    # Softmax does not change when all keys move alike: a key bias has no gradient but rounding.
    assert all(name.endswith("k_proj.bias") or ".key.bias" in name for name in trained - updated)


def test_zero_shot_is_the_untouched_base(finished, tiny_checkpoint, flickr_folder, tmp_path):
    """Beside the run that only scores: no weight has been touched in it."""
    words = ("train=false", "zero_shot=false")
    metrics = run_train(tmp_path / "run", tiny_checkpoint, flickr_folder, *words)
    trained = {name: value for name, value in finished.metrics.items() if name.startswith("zero_shot/test/")}
    assert trained == {f"zero_shot/{name}": value for name, value in metrics.items() if name.startswith("test/")}
    assert captions(tmp_path / "run") == captions(finished.folder, "zero_shot_caption")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM here")
@pytest.mark.slow
def test_a_stopped_run_resumes_in_its_own_folder_to_the_same_end(finished, tiny_checkpoint, flickr_folder, tmp_path):
    run = tmp_path / "logs" / "train" / "runs" / "one"
    with pytest.raises(Stopped, match=f"stopped by SIGTERM; .*ckpt_path={run}"):
        run_train(run, tiny_checkpoint, flickr_folder, *MAIN, PROBE, "+callbacks.probe.stop_in_step=5")
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    assert not (run / "error.log").exists()
    metrics = run_train(run, tiny_checkpoint, flickr_folder, *MAIN, "ckpt_path=last")
    for name in ("best.ckpt", "last.ckpt"):
        assert same(*(saved_weights(folder / "checkpoints" / name) for folder in (run, finished.folder)))
    clock = "time/fit_seconds"
    assert metrics | {clock: 0} == finished.metrics | {clock: 0}
    assert captions(run) == captions(finished.folder)
    assert validations(run) == validations(finished.folder)
    again = run_train(run, tiny_checkpoint, flickr_folder, *MAIN, f"ckpt_path={run}")  # nothing left to train
    assert again | {clock: 0} == metrics | {clock: 0}
    assert [path.name for path in run.parent.iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("model.optimizer.lr=0.5", r"model.optimizer.lr=0.5; expected 0.01 as in .*last.ckpt"),
        ("datamodule.data_dir=OTHER", "the images or their splits differ"),
    ],
)
def test_settings_that_a_resumed_run_would_ignore_are_refused(
    finished, tiny_checkpoint, flickr_folder, tmp_path, changed, message
):
    run = tmp_path / "logs" / "train" / "runs" / "one"
    shutil.copytree(finished.folder, run)
    files = [run / name for name in ("config_resolved.yaml", "metrics.json", "run.json")]
    before = [file.read_bytes() for file in files]
    if "OTHER" in changed:
        write_scenes(tmp_path / "other", 30, "plain", seed=3, size=32)
        changed = f"datamodule.data_dir={tmp_path / 'other'}"
    with pytest.raises(UserError, match=message):
        run_train(run, tiny_checkpoint, flickr_folder, *MAIN, changed, "ckpt_path=last")
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    "settings",
    [
        ("callbacks.model_checkpoint.save_top_k=3",),
        ("callbacks.model_checkpoint.dirpath=ELSEWHERE", "callbacks.model_checkpoint.filename='{epoch}'"),
    ],
)
@pytest.mark.slow
def test_best_ckpt_is_of_the_lowest_loss_whatever_its_name_and_the_sanity_check_is_not_counted(
    tiny_checkpoint, flickr_folder, tmp_path, settings
):
    """With a rate so high that every epoch is worse than the base and the second worse than the first."""
    settings = [one.replace("ELSEWHERE", str(tmp_path / "elsewhere")) for one in settings]
    rate = ("model.train=full", "model.optimizer.lr=1", "model.lr_scheduler=null", "trainer.max_epochs=2")
    limits = ("trainer.limit_train_batches=1", "trainer.num_sanity_val_steps=-1", "test=false", "logger=csv")
    run = tmp_path / "run"
    metrics = run_train(run, tiny_checkpoint, flickr_folder, *rate, *limits, PROBE, *settings)
    first, second = validations(run)
    assert Probe.seen["sanity"] < first < second
    assert metrics["val/loss_best"] == pytest.approx(first)
    best, last = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["epoch"], best["global_step"], last["epoch"]) == (0, 1, 1)


@pytest.mark.slow
def test_without_test_images_the_test_is_skipped(tiny_checkpoint, flickr_folder, tmp_path, caplog):
    caplog.set_level("INFO")
    settings = ("trainer.max_steps=1", "datamodule.split_ratios=[0.8,0.2,0]")
    metrics = run_train(tmp_path / "run", tiny_checkpoint, flickr_folder, *settings)
    assert "val/loss" in metrics
    assert not [name for name in metrics if name.startswith("test/")]
    assert "the test is skipped" in caplog.text
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics


@pytest.mark.slow
def test_the_seed_decides_the_weights_bit_for_bit(tiny_checkpoint, flickr_folder, tmp_path):
    """Adapters are initialized by the global generator, which is in another state before each run; 0 is a seed too."""
    found = []
    for number, seed in enumerate((0, 0, 7)):
        torch.manual_seed(100 + number)
        words = (f"seed={seed}", "model.train=lora", "test=false", "~logger", "trainer.max_steps=1")
        run_train(tmp_path / f"run{number}", tiny_checkpoint, flickr_folder, *words)
        found.append(saved_weights(tmp_path / f"run{number}" / "checkpoints" / "best.ckpt"))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])
    left = {path.name for path in (tmp_path / "run0").iterdir()}
    assert {"metrics.json", "checkpoints", "report.html"} <= left  # with no logger at all
    assert not {"csv", "tensorboard", "losses.png"} & left


@pytest.mark.slow
def test_eight_samples_overfit(root, tmp_path):
    """The loss falls to nearly nothing, and the model generates the captions of the same images."""
    write_scenes(tmp_path / "scenes", 8, "night", size=64)
    images_folder = same_images_in_all_splits(tmp_path / "scenes", tmp_path / "thrice")
    learn = ("model.train=full", "model.optimizer.lr=3e-3", "model.lr_scheduler=null", "model.generation.max_length=40")
    learn += ("trainer.max_epochs=26", "trainer.check_val_every_n_epoch=99", "trainer.precision=32-true")
    extra = ("zero_shot=false", "~callbacks.last_checkpoint", "logger=none")
    metrics = run_train(tmp_path / "run", root / "src/demo/vit_gpt2_tiny", images_folder, *learn, *extra)
    assert metrics["train/loss"] < 0.05
    assert metrics["test/loss"] < 0.05
    assert metrics["val/loss"] < 0.05  # of the one validation that a run without any is given at its end
    assert captions(tmp_path / "run") == captions(tmp_path / "run", "reference_1")


def test_a_report_that_finds_no_room_does_not_cost_the_numbers(tmp_path, caplog):
    (tmp_path / "report.html").mkdir()
    write_reports(tmp_path, {"test/loss": 1.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"test/loss": 1.5}
    assert "the report cannot be written" in caplog.text


@pytest.mark.slow
def test_a_debug_run_writes_no_checkpoint_and_no_debug_lines_of_libraries(tiny_checkpoint, flickr_folder, tmp_path):
    run = tmp_path / "run"
    run_train(run, tiny_checkpoint, flickr_folder, "trainer.fast_dev_run=true")  # what debug=fdr sets
    assert not list(run.rglob("*.ckpt"))
    assert not list(run.rglob("events.out.tfevents*"))
    logging_config = composed("debug=fdr", full=True).hydra.job_logging
    assert logging_config.root.level == "DEBUG"
    assert logging_config.loggers.matplotlib.level == "INFO"
