"""The end of a run on the screen."""

import io

from rich.console import Console

from src.report.run_files import read_predictions
from src.report.summary import caption_texts, print_summary, score_table
from tests.report.fake_run import make_run


def printed(*things, folder=None, metrics=None) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    if folder is not None:
        print_summary(folder, metrics or {}, console=console)
    for thing in things:
        console.print(thing)
    return console.file.getvalue()


METRICS = {
    "test/loss": 1.2, "zero_shot/test/loss": 3.4, "test/bleu_4": 0.4, "zero_shot/test/bleu_4": 0.1,
    "test/cider_d": 2.5, "test/cider_d_low": 2.3, "test/cider_d_high": 2.7, "zero_shot/test/cider_d": 0.45,
}  # fmt: skip


def test_scores_captions_and_places_are_shown(tmp_path):
    run = make_run(tmp_path / "run", pictures=8, hostile=False)
    (run / "tensorboard").mkdir()
    (run / "report.html").touch()
    text = printed(folder=run, metrics=METRICS)
    for said in (
        "8 test images",
        "zero-shot",
        "fine-tuned",
        "Loss (nats/token)",
        "2.500  2.300 – 2.700",
        "0.450",
    ):
        assert said in text
    assert text.count("reference ") == 4
    assert f"Run folder: {run}" in text
    assert f"Report: {run / 'report.html'}" in text
    assert f"tensorboard --logdir {run / 'tensorboard'}" in text


def test_without_a_base_there_is_one_column():
    table = score_table({key: value for key, value in METRICS.items() if not key.startswith("zero")})
    assert [column.header for column in table.columns] == ["", "fine-tuned"]


def test_a_score_that_the_base_lacks_is_a_dash():
    text = printed(score_table({"test/cider_d": 1.0, "test/loss": 2.0, "zero_shot/test/loss": 3.0}))
    assert "CIDEr-D" in text
    assert " - " in text


def test_nothing_to_show_is_no_table(tmp_path):
    assert printed(folder=tmp_path) == f"Run folder: {tmp_path}\n"


def test_captions_cannot_speak_to_the_terminal(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text(
        "image_id,caption,reference_1\n[red]a[/red],x [/nope] \x1b[31m [link=file:///x]y[/link],[bold]\n"
    )
    text = printed(*caption_texts(read_predictions(path), 4))
    assert "[red]a[/red]" in text
    assert "x [/nope] \ufffd[31m [link=file:///x]y[/link]" in text
    assert "\x1b" not in text


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / "predictions.csv").write_text("a\nb\n")
    assert "predictions.csv could not be read" in printed(folder=tmp_path)
