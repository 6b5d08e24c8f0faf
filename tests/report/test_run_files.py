"""Reading a run folder: everything that is there, a note for what is not."""

import io

import pytest
import torch
from PIL import Image

from src.report.run_files import (
    CURVES,
    curve,
    finite_floats,
    read_history,
    read_metrics,
    read_predictions,
    read_run,
)
from tests.datamodule.layouts import LAYOUTS
from tests.datamodule.readers.test_formats import make_samples
from tests.report.fake_run import make_run

TRAIN_LOSS, VAL_LOSS = CURVES["loss"][2:]


@pytest.fixture
def predictions(tmp_path):
    """A function that reads the rows of a predictions.csv of some text."""

    def read(text):
        (tmp_path / "p.csv").write_text(text, encoding="utf-8")
        return read_predictions(tmp_path / "p.csv")

    return read


def test_a_complete_folder_is_read_without_notes(tmp_path):
    run = read_run(make_run(tmp_path / "run", 6))
    assert (run.notes, len(run.predictions)) == ([], 6)
    row = run.predictions[0]
    names = ("bleu_4", "cider_d", "rouge_l")
    assert set(row.scores) == {f"{base}{name}" for base in ("", "zero_shot_") for name in names}
    assert (len(row.references), row.license, row.box) == (5, "CC BY 4.0", None)


def test_text_is_read_as_it_is(predictions):
    (row,) = predictions('image_id,caption,reference_1,cider_d\n007,nan,"NA, null",0.5\n')
    assert (row.image_id, row.caption, row.references) == ("007", "nan", ("NA, null",))


def test_empty_references_are_dropped_and_a_box_is_read(predictions):
    text = "image_id,caption,reference_1,reference_2,box,cider_d\na,x,one, ,1 2 30 40,nan\nb,y,,two,1 2 3,\n"
    first, second = predictions(text)
    assert (first.references, first.box, first.scores) == (("one",), (1, 2, 30, 40), {})
    assert (second.references, second.box) == (("two",), None)


def test_an_image_in_a_tar_file_is_read_by_its_span(tmp_path, predictions):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(buffer, "PNG")
    (tmp_path / "a.tar").write_bytes(bytes(512) + buffer.getvalue() + bytes(100))
    size = len(buffer.getvalue())
    (row,) = predictions(f"image_id,path,span,caption\na/0,a.tar,512 {size},x\n")
    assert row.span == (512, size)
    assert row.pixels().shape == (4, 6, 3)


def test_an_image_in_a_parquet_file_is_read_by_its_column_and_row(tmp_path, predictions):
    LAYOUTS["parquet_bytes"](tmp_path, make_samples())
    first, second = predictions("image_id,path,span,caption\na,part-00000.parquet,image 3,x\nb,x,image,y\n")
    assert (first.span, second.span) == (("image", 3), None)
    assert first.pixels()[0, 0].tolist() == [15, 100, 200]


def test_an_empty_caption_of_the_base_differs_from_no_base(predictions):
    scored, unscored = predictions("image_id,caption,zero_shot_caption,zero_shot_cider_d\na,x,,0.0\nb,y,,\n")
    assert (scored.zero_shot_caption, unscored.zero_shot_caption) == ("", None)


def test_a_relative_image_path_starts_at_the_run_folder(tmp_path, predictions):
    rows = predictions("image_id,path,caption\na,Images/a.jpg,x\nb,/images/b.jpg,y\nc,,z\n")
    assert [row.path for row in rows] == [str(tmp_path / "Images" / "a.jpg"), "/images/b.jpg", ""]


def test_only_finite_numbers_are_metrics(tmp_path):
    (tmp_path / "metrics.json").write_text('{"a": 1, "b": NaN, "c": "text", "d": Infinity, "e": 1' + "0" * 400 + "}")
    assert read_metrics(tmp_path / "metrics.json") == {"a": 1.0}
    assert finite_floats({"a": torch.tensor(1.5), "b": torch.tensor(float("nan"))}) == {"a": 1.5}


def test_history_of_all_files_is_sorted_by_step(tmp_path):
    for name, rows in (
        ("version_1", "3,0.5,\n4,,0.6\n"),
        ("version_0", "1,0.9,\n2,,0.8\n5,nan,text\n6\n,9,9\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("step,train/loss,val/loss\n" + rows)
    history = read_history(tmp_path)
    assert curve(history, TRAIN_LOSS) == [(1, 0.9), (3, 0.5)]
    assert curve(history, VAL_LOSS) == [(2, 0.8), (4, 0.6)]
    assert curve(read_history(tmp_path / "absent"), VAL_LOSS) == []


def test_a_curve_is_the_most_logged_name_with_the_last_value_of_a_step():
    steps = [{"step": 1.0, "train/loss_step": 2.0}, {"step": 1.0, "train/loss_step": 1.0}]
    epochs = [{"step": 1.0, "train/loss": 9.0}, {"step": 2.0, "train/loss": 8.0}]
    assert curve(steps, TRAIN_LOSS) == [(1, 1.0)]
    assert curve([*steps, *epochs], TRAIN_LOSS) == [(1, 9.0), (2, 8.0)]
    long = [{"step": float(step), "val/loss": 2.0 * step + 1} for step in range(4)]
    assert curve(long, VAL_LOSS, max_points=2) == [(0.5, 2.0), (2.5, 6.0)]
