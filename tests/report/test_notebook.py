"""What the notebook shows of a run: the scores of both models, pictures with captions, words with maps."""

import json

import pytest

from src.report.attention import read_attention
from src.report.notebook import draw_pictures, draw_words, picture_of, read_scores
from src.report.run_files import read_predictions
from src.report.scores import score_rows
from src.utils.errors import UserError
from tests.report.fake_run import HOSTILE, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight pictures, the first of which is gone."""
    folder = make_run(tmp_path_factory.mktemp("run"), 8)
    (folder / "pictures" / "0000.jpg").unlink()
    return folder


def shown(figure):
    return [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes if axes.has_data()]


def test_scores_of_base_and_model_stand_side_by_side(run):
    table = read_scores(run)
    assert list(table.columns) == ["zero-shot", "fine-tuned"]
    labels = [row.label for row in score_rows(json.loads((run / "metrics.json").read_text()))]
    assert list(table.index) == labels
    assert table.loc["CIDEr-D"].tolist() == ["0.451 (0.419 – 0.478)", "2.512 (2.336 – 2.663)"]
    assert table.loc["Loss"].tolist() == ["3.402", "1.214"]  # without an interval


def test_a_score_of_one_model_alone_has_a_dash(tmp_path):
    (tmp_path / "metrics.json").write_text('{"test/cider_d": 1.5}')
    assert read_scores(tmp_path).loc["CIDEr-D"].tolist() == ["-", "1.500"]


def test_a_folder_without_scores_is_told(tmp_path):
    with pytest.raises(UserError, match=r"has no metrics.json; expected the folder of a finished run"):
        read_scores(tmp_path)


def test_pictures_that_are_there_are_shown_with_what_was_said_of_them(run):
    figure = draw_pictures(run, count=4)
    rows = [row for row in read_predictions(run / "predictions.csv") if picture_of(row) is not None]
    texts = [text.replace("\n", " ") for text in shown(figure)]
    assert len(texts) == 4
    for text, row in zip(texts, rows, strict=False):
        assert text == f"before: {row.zero_shot_caption} after: {row.caption} reference: {row.references[0]}"
    assert HOSTILE.split()[2] in texts[0]  # markup and formulas are text here
    figure.canvas.draw()


def test_a_run_without_pictures_is_an_empty_figure(tmp_path):
    folder = make_run(tmp_path, 3)
    for path in (folder / "pictures").iterdir():
        path.unlink()
    assert shown(draw_pictures(folder)) == []


def test_words_are_shown_one_by_one(run):
    maps = read_attention(run / "attention.json")
    rows = [row for row in read_predictions(run / "predictions.csv") if row.image_id in maps]
    first = next(row for row in rows if picture_of(row) is not None)
    figure = draw_words(run)
    assert shown(figure) == first.caption.split()
    assert shown(draw_words(run, rows[-1].image_id)) == rows[-1].caption.split()
    figure.canvas.draw()


@pytest.mark.parametrize("image_id", ["0000.jpg", "nowhere.jpg"])
def test_a_picture_without_a_map_is_told_with_those_that_have_one(run, image_id):
    with pytest.raises(
        UserError, match=rf"image_id='{image_id}' has no word map here; expected one of \d+\.jpg"
    ):
        draw_words(run, image_id)
