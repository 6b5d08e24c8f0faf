"""Predictions as a file: captions and references come back from it, with the same scores."""

import csv
import errno
import json
from types import SimpleNamespace

import numpy as np
import pytest

from src.datamodule.caption_table import CaptionedImage
from src.evaluate import PER_IMAGE, evaluate, rescore, write_predictions
from src.metrics.bootstrap import token_mean
from src.metrics.scorer import CaptionScorer, Scores
from src.report.run_files import read_predictions
from src.utils.errors import UserError

SCORER = CaptionScorer(bootstrap_samples=20)
CAPTIONS = {"a.jpg": "a dog runs on grass", "=b.jpg": "=a cat", "c.jpg": ""}
BASE = {"a.jpg": "a dog", "=b.jpg": "", "c.jpg": "two birds"}


def images():
    """Three images: one within a tar, with twelve references (columns of one and two digits), one a subfigure."""
    many = tuple(f"a dog runs on grass {'again ' * k}" for k in range(12))
    return [
        CaptionedImage("a.jpg", "/images/a.jpg", many, "a", license="CC0", span=(512, 99)),
        CaptionedImage("=b.jpg", "/images/=b.jpg", ("-a cat sits", "a cat"), "b", license="CC0"),
        CaptionedImage("c.jpg", "/images/c.jpg", ("two birds", "birds in the sky"), "c", (10, 20, 110, 220)),
    ]


DATA = SimpleNamespace(splits={"test": images()}, all_unreadable=dict)
TRAINER = SimpleNamespace(is_global_zero=True)


def scored(captions, loss=2.0):
    others = {"loss": token_mean(np.array([loss, 1.5, 1 / 3]), np.array([7.0, 30.0, 4.0]))}
    references = [list(image.captions) for image in images()]
    return SCORER.score(list(CAPTIONS), [captions[name] for name in CAPTIONS], references, others=others)


@pytest.fixture
def written(tmp_path):
    """A predictions.csv of model and base."""
    path = tmp_path / "predictions.csv"
    write_predictions(path, images(), CAPTIONS, scored(CAPTIONS), BASE, scored(BASE, 3.0))
    return path


def test_a_file_scored_again_gives_the_same_numbers_and_the_same_file(written, tmp_path):
    metrics = rescore(written, tmp_path / "again", SCORER)
    tuned, base = scored(CAPTIONS), scored(BASE, 3.0)
    gains = SCORER.gains(tuned, base).flat("test/")
    assert metrics == tuned.flat("test/") | base.flat("zero_shot/test/") | gains
    assert gains["test/loss_gain"] == pytest.approx(-7 / 41)
    assert gains["test/cider_d_gain"] == metrics["test/cider_d"] - metrics["zero_shot/test/cider_d"]
    assert gains["test/bleu_4_gain_low"] <= gains["test/bleu_4_gain"] <= gains["test/bleu_4_gain_high"]
    assert "test/mean_length_gain" not in gains  # longer is not better
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == written.read_bytes()


def test_the_file_holds_text_boxes_and_spans_as_they_are(written, tmp_path):
    with written.open(encoding="utf-8", newline="") as file:
        row = list(csv.DictReader(file))[1]
    assert [row[name] for name in ("image_id", "caption", "reference_1")] == ["=b.jpg", "=a cat", "-a cat sits"]
    first, read, last = read_predictions(written)
    assert (read.image_id, read.caption, read.references[0]) == ("=b.jpg", "=a cat", "-a cat sits")
    assert (read.zero_shot_caption, read.license, read.box) == ("", "CC0", None)
    assert (first.span, last.box) == ((512, 99), (10, 20, 110, 220))
    write_predictions(tmp_path / "alone.csv", images(), CAPTIONS, scored(CAPTIONS))
    assert all(row.zero_shot_caption is None for row in read_predictions(tmp_path / "alone.csv"))


def test_images_of_one_base_name_keep_their_own_captions_and_surrogates_are_replaced(tmp_path):
    two = [CaptionedImage(f"{x}/1.jpg", f"/{x}/1.jpg", (f"a {x}\ud83d",), x) for x in ("cat", "dog")]
    captions = {"cat/1.jpg": "a cat", "dog/1.jpg": "a dog"}
    write_predictions(tmp_path / "p.csv", two, captions, Scores({}, {}, [dict.fromkeys(PER_IMAGE, 0.0)] * 2))
    rows = read_predictions(tmp_path / "p.csv")
    assert [(row.image_id, row.caption, row.references) for row in rows] == [
        ("cat/1.jpg", "a cat", ("a cat?",)),
        ("dog/1.jpg", "a dog", ("a dog?",)),
    ]


def test_a_file_of_another_program_may_hold_other_columns(tmp_path):
    text = "\ufeffimage_id,caption,reference_1,reference_2,reference_text,note\n"
    text += "a.jpg,a dog,a dog runs,,x,y\nb.jpg,a cat,a cat sits,the cat,x,y,and,more"
    (tmp_path / "other.csv").write_text(text, encoding="utf-8")
    metrics = rescore(tmp_path / "other.csv", tmp_path, SCORER)
    expected = SCORER.score(["a.jpg", "b.jpg"], ["a dog", "a cat"], [["a dog runs"], ["a cat sits", "the cat"]])
    assert metrics == expected.flat("test/")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read .*No such file"),
        (b"", "found none"),
        (b"image_id,caption\na,b\n", "no row has a reference_1"),
        ("image_id,caption,reference_1\na,é,b\n".encode("latin-1"), "expected a csv file in UTF-8"),
        (b"image_id,caption,reference_1\na,b,c\na,d,e\n", "image 'a' occurs twice"),
    ],
)
def test_a_file_that_cannot_be_scored_is_rejected_in_one_line(tmp_path, content, message):
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        rescore(path, tmp_path / "out", SCORER)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_a_readable_test_image_there_is_no_score(tmp_path, monkeypatch):
    monkeypatch.setattr("src.evaluate._test", lambda *_: (1.5, ({}, {})))
    with pytest.raises(UserError, match="no test image could be read; expected at least one"):
        evaluate(None, DATA, TRAINER, tmp_path, SCORER, zero_shot=False)
    assert list(tmp_path.iterdir()) == []


def test_a_nearly_full_disk_costs_attention_maps_and_not_the_scores(tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        assert (tmp_path / "metrics.json").is_file()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("src.evaluate._test", lambda *_: (1.5, (CAPTIONS, {})))
    monkeypatch.setattr("src.evaluate.write_attention", fail)
    evaluate(None, DATA, TRAINER, tmp_path, SCORER, zero_shot=False)
    assert json.loads((tmp_path / "metrics.json").read_text())["test/loss"] == 1.5
    assert (tmp_path / "predictions.csv").is_file()
    assert "attention.json cannot be written" in caplog.text
