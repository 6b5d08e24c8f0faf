"""The model card describes what is known of a model, and nothing of the machine that trained it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from src.models.restore import open_captioner
from src.report.model_card import model_card
from tests.saved_run import save_run


@pytest.fixture
def run(tiny_checkpoint, tmp_path) -> Path:
    save_run(tmp_path / "run", tiny_checkpoint)
    return tmp_path / "run"


def card(checkpoint: Path) -> str:
    return model_card(open_captioner(checkpoint), "float32")


def test_the_card_has_data_split_scores_with_intervals_limits_and_license(run):
    text = card(run)
    assert text.startswith("---\nlibrary_name: transformers\npipeline_tag: image-to-text\n")
    for expected in (
        "fine-tuned from a local model (sha256", "images of Flickr", "Images: 32 train, 4 val, 4 test.",
        "ratios 0.8 / 0.1 / 0.1 with seed 0", "| CIDEr-D | 0.900 (0.700 – 1.100) | 0.100 (0.000 – 0.200) |",
        "| BLEU-4 | 0.250 | – |", "| Loss, nats per token | 1.250 | 3.500 |", "| commit | abc1234 |",
        "| trained | last_blocks, last 1 blocks |", "## Limits", "belong to their authors on Flickr",
    ):  # fmt: skip
        assert expected in text


def test_no_command_folder_or_user_name_is_in_the_card(run, tiny_checkpoint):
    command = "train.py paths.data_dir=/home/anna/secret-project logger.comet.api_key=abc"
    (run / "run.json").write_text(json.dumps({"command": command, "commit": "abc1234", "user": "anna"}))
    text = card(run)
    names = ("train.py", "anna", "secret-project", "api_key", "somewhere", "flickr8k", tiny_checkpoint.name)
    for name in names:
        assert name not in text.replace("Flickr8k", "")


def test_scores_are_those_of_the_best_checkpoint_and_damaged_files_shorten_the_card(run, tmp_path):
    best = run / "checkpoints" / "best.ckpt"
    assert "## Scores" not in card(shutil.copy(best, tmp_path / "x.ckpt"))
    last = best.rename(run / "checkpoints" / "last.ckpt")
    assert "## Scores" not in card(run)
    assert "## Data" in card(run)
    last.rename(best)
    (run / "metrics.json").write_text("{")
    (run / "run.json").unlink()
    assert "## Scores" not in card(run)
    assert "Images:" not in card(run)


def test_a_saved_folder_has_a_card_without_a_run(tiny_checkpoint):
    text = card(tiny_checkpoint)
    assert "## Data" not in text
    assert "## Training" not in text
    assert "saved from a local model" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"datamodule": {"_target_": "a.MedicatDataModule", "fold": 2, "num_folds": 5, "split_seed": 1}},
         "Split: fold 2 of 5, seed 1."),
        ({"datamodule": {"_target_": "mine.Other"}}, "captioned images read by `Other`"),
        ({"model": {"train": "lora"}}, "| trained | lora |"),
        ({"model": {"train": "a|b\nc"}}, "| trained | a\\|b c |"),
        ({"model": [1], "datamodule": "x", "trainer": None}, "## Training"),
    ],
)  # fmt: skip
def test_the_card_follows_the_config(run, changes, expected):
    found = open_captioner(run)
    config = json.loads(json.dumps(found.trained["config"])) | changes
    changed = dataclasses.replace(found, base="org/base@main", trained={"config": config})
    text = model_card(changed, "float32")
    assert expected in text
    assert 'base_model: "org/base"' in text
