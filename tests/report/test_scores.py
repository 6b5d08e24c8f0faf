"""Scores as rows, and the end of a run on the screen."""

import pytest

from src.report.scores import (
    Score,
    next_steps,
    other_scores,
    print_summary,
    read_scores,
    score_rows,
    score_table,
    small_test_note,
)
from src.utils.errors import UserError
from tests.report.fake_run import make_run

METRICS = {
    "test/cider_d": 2.0, "test/cider_d_low": 1.8, "test/cider_d_high": 2.2,
    "zero_shot/test/cider_d": 0.5, "zero_shot/test/cider_d_low": 0.4, "zero_shot/test/cider_d_high": 0.6,
    "test/loss": 1.0, "zero_shot/test/loss": 3.0, "test/mean_length": 9.25,
    "val/loss": 7.0, "time/fit_seconds": 3.0,
}  # fmt: skip


def test_a_row_has_both_models_with_their_intervals():
    cider, loss = score_rows(METRICS)
    assert (cider.label, str(cider.tuned), cider.base.value) == ("CIDEr-D", "2.000 (1.800 – 2.200)", 0.5)
    assert cider.ticks[0] == 0
    assert 2.2 < cider.ticks[-1] < 2.6
    assert (str(loss.tuned), str(loss.base)) == ("1.000", "3.000")


def test_a_verdict_is_that_of_the_paired_interval():
    gains = {"better": (0.1, 0.4), "unclear": (-0.1, 0.4), "worse": (-0.4, -0.1)}
    for verdict, (low, high) in gains.items():
        gain = {"test/cider_d_gain": low, "test/cider_d_gain_low": low, "test/cider_d_gain_high": high}
        assert score_rows(METRICS | gain)[0].verdict == verdict
    assert [row.verdict for row in score_rows(METRICS)] == ["", ""]
    assert [str(Score(value)) for value in (0.0, 0.0004, 0.0005)] == ["0.000", "<0.001", "0.001"]


def test_scores_of_one_model_and_zero():
    row = score_rows({"test/cider_d": 1.0})[0]
    assert row.base is None
    assert [score_rows({"test/bleu_4": value})[0].ticks[-1] for value in (0.0, 1e-9)] == [1, 1]
    assert score_rows({"test/bleu_4": 1.0, "test/bleu_4_low": 0.5})[0].tuned.interval == ""
    more = METRICS | {"test/mean_length_low": 9.0, "zero_shot/test/distinct": 0.1}
    distinct, length = other_scores(more)
    assert (distinct[0], distinct[1], str(distinct[2])) == ("distinct", None, "0.100")
    assert (length[0], length[1].value, length[2]) == ("mean length", 9.25, None)


def test_scores_as_a_table_for_the_notebook(tmp_path):
    table = read_scores(make_run(tmp_path / "run", 3))
    assert table.loc["CIDEr-D"].tolist() == ["0.451 (0.419 – 0.478)", "2.512 (2.336 – 2.663)"]
    gain = {"test/cider_d_gain": 1.5, "test/cider_d_gain_low": 1.25, "test/cider_d_gain_high": 1.75}
    assert score_table(METRICS | gain)["gain"].tolist() == ["1.500 (1.250 – 1.750)", "-"]
    (tmp_path / "metrics.json").write_text('{"test/cider_d": 1.5}')
    assert read_scores(tmp_path).loc["CIDEr-D"].tolist() == ["-", "1.500"]
    with pytest.raises(UserError, match=r"has no metrics.json"):
        read_scores(tmp_path / "run" / "images")


def test_the_summary_shows_scores_captions_and_commands(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "run", 8, hostile=False)
    (run / "tensorboard").mkdir()
    (run / "report.html").touch()
    monkeypatch.chdir(tmp_path)
    print_summary(run, METRICS | {"data/test_images": 8})
    text = capsys.readouterr().out
    for expected in (
        "base", "fine-tuned", "2.000 (1.800 – 2.200)", "  0.500 (0.400 – 0.600)", "  3.000", "known to about ±0.20",
        "about 32 would halve", "report       run/report.html\n", "-m tensorboard.main --logdir run\n",
    ):  # fmt: skip
        assert expected in text
    assert text.count("reference ") == 2
    print_summary(tmp_path, {"data/test_images": 8})
    assert capsys.readouterr().out.strip() == ""


def test_own_data_are_the_next_step_of_other_data_alone(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for kind, is_next in (("flickr.FlickrDataModule", True), ("folder.FolderDataModule", False)):
        (tmp_path / "config_resolved.yaml").write_text(f"datamodule: {{_target_: src.datamodule.{kind}}}")
        assert ("own data" in "\n".join(next_steps(tmp_path))) == is_next


@pytest.mark.parametrize(
    ("count", "note"),
    [
        (3, "The test set is too small"),
        (25, "With 25 test images CIDEr-D is known to about ±0.20 (95%) only"),
        (100, ""),
        (0, ""),
    ],
)
def test_few_test_images_are_said_to_be_few(count, note):
    assert small_test_note(METRICS | {"data/test_images": count}).startswith(note)
    assert bool(small_test_note(METRICS | {"data/test_images": count})) == bool(note)


def test_captions_are_escaped_and_long_ones_are_cut(tmp_path, capsys):
    path = tmp_path / "predictions.csv"
    path.write_text(f"image_id,caption,reference_1\na\x1b[0m,x \x1b[31m \u202e,{'word ' * 6000}\n")
    print_summary(tmp_path, {})
    text = capsys.readouterr().out
    assert r"a\x1b[0m" in text
    assert r"x \x1b[31m \u202e" in text
    assert 20 < text.count("word") < 50
