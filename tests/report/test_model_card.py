"""The card says what is known of a model and nothing that is not."""

import json
import shutil
from pathlib import Path

import pytest

from src.models.restore import Restored, open_captioner
from src.report.model_card import model_card
from tests.saved_run import save_run


@pytest.fixture
def run(tiny_checkpoint, tmp_path) -> Path:
    save_run(tmp_path / "run", tiny_checkpoint)
    return tmp_path / "run"


def card(checkpoint: Path) -> str:
    return model_card(open_captioner(checkpoint), "float32")


def test_data_split_scores_with_intervals_limits_and_licence(run, tiny_checkpoint):
    text = card(run)
    assert text.startswith("---\nlibrary_name: transformers\npipeline_tag: image-to-text\n")
    assert f"fine-tuned from `{tiny_checkpoint.name}`" in text
    assert "photographs of Flickr" in text
    assert "folder `flickr8k`" in text
    assert "Images: 32 train, 4 val, 4 test." in text
    assert "ratios 0.8 / 0.1 / 0.1 with seed 0" in text
    assert "Left out: 1 rows of the captions file, 0 broken pictures." in text
    assert "| CIDEr-D | 0.900 (0.700 – 1.100) | 0.100 (0.000 – 0.200) |" in text
    assert "| BLEU-4 | 0.250 | – |" in text
    assert "| Loss, nats per token | 1.250 | 3.500 |" in text
    assert "| trained | last_blocks, last 1 blocks |" in text
    assert "| commit | abc1234 |" in text
    assert "## Limits" in text
    assert "belong to their authors on Flickr" in text


def test_nothing_of_this_machine_is_in_it(run, tiny_checkpoint):
    text = card(run)
    assert "/somewhere" not in text
    assert str(tiny_checkpoint.parent) not in text


def test_scores_belong_to_the_checkpoint_that_was_scored(run):
    (run / "checkpoints" / "best.ckpt").rename(run / "checkpoints" / "last.ckpt")
    assert "## Scores" not in card(run)
    assert "## Data" in card(run)


def test_a_checkpoint_without_its_run_and_a_damaged_run_have_shorter_cards(run, tmp_path):
    copied = shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "x.ckpt")
    assert "## Scores" not in card(copied)
    (run / "metrics.json").write_text("{")
    (run / "run.json").unlink()
    assert "## Scores" not in card(run)
    assert "Images:" not in card(run)


def test_a_saved_folder_has_a_card_without_a_run(tiny_checkpoint):
    text = card(tiny_checkpoint)
    assert "## Data" not in text
    assert "## Training" not in text
    assert "saved from" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"datamodule": {"_target_": "a.MedicatDataModule", "fold": 2, "num_folds": 5, "split_seed": 1}},
         "Split: fold 2 of 5, seed 1."),
        ({"datamodule": {"_target_": "mine.Other"}}, "captioned pictures read by `Other`"),
        ({"model": {"train": "lora"}}, "| trained | lora |"),
        ({"model": {"train": "a|b\nc"}}, "| trained | a\\|b c |"),
    ],
)  # fmt: skip
def test_what_the_config_says_is_said(run, changes, told):
    found = open_captioner(run)
    config = json.loads(json.dumps(found.trained["config"])) | changes
    changed = Restored(
        found.model, found.processor, 12, 3, "x", "org/base@main", found.file, {"config": config}
    )
    text = model_card(changed, "float32")
    assert told in text
    assert 'base_model: "org/base"' in text
