"""Reading a run folder: everything that is there, a note for what is not."""

import json

import pytest

from src.report.run_files import RunFiles, read_json_object, read_metrics, read_predictions, read_run
from tests.report.fake_run import make_run


def test_a_complete_folder_is_read_without_notes(tmp_path):
    run = read_run(make_run(tmp_path / "run", pictures=6))
    assert run.notes == []
    assert len(run.predictions) == 6
    row = run.predictions[0]
    assert row.scores["cider_d"] > 0
    assert set(row.scores) == {
        f"{base}{name}" for base in ("", "zero_shot_") for name in ("bleu_4", "cider_d", "rouge_l")
    }
    assert len(row.references) == 5
    assert row.license == "CC BY 4.0"
    assert row.box is None
    assert run.split == "test"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_empty_references_are_dropped_and_a_box_is_read(tmp_path):
    path = write(
        tmp_path / "predictions.csv",
        "image_id,caption,reference_1,reference_2,box,cider_d\na,x,one, ,1 2 30 40,nan\nb,y,,two,1 2 3,\n",
    )
    first, second = read_predictions(path)
    assert (first.references, first.box, first.scores) == (("one",), (1, 2, 30, 40), {})
    assert (second.references, second.box) == (("two",), None)


def test_a_base_that_said_nothing_is_told_from_one_that_was_not_asked(tmp_path):
    head = "image_id,caption,zero_shot_caption,zero_shot_cider_d\n"
    asked, not_asked = read_predictions(write(tmp_path / "p.csv", head + "a,x,,0.0\nb,y,,\n"))
    assert asked.zero_shot_caption == ""
    assert not_asked.zero_shot_caption is None


def test_a_file_without_captions_is_refused(tmp_path):
    with pytest.raises(KeyError, match="caption"):
        read_predictions(write(tmp_path / "p.csv", "image_id,text\na,b\n"))


def test_only_finite_numbers_are_metrics(tmp_path):
    path = write(tmp_path / "m.json", '{"a": 1, "b": NaN, "c": "text", "d": Infinity}')
    assert read_metrics(path) == {"a": 1.0}


def test_json_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a JSON object, found a list"):
        read_json_object(write(tmp_path / "m.json", "[1]"))


def test_what_cannot_be_read_becomes_a_note(tmp_path):
    run = RunFiles(tmp_path)
    assert run.read("absent.json", read_metrics) is None
    assert run.notes == []
    assert run.read("absent.json", read_metrics, "so there.") is None
    write(tmp_path / "metrics.json", "{")
    assert run.read("metrics.json", read_metrics) is None
    assert run.notes[0] == "No absent.json: so there."
    assert run.notes[1].startswith("metrics.json could not be read: ")


def test_the_split_comes_from_the_run(tmp_path):
    write(tmp_path / "run.json", json.dumps({"split": "val"}))
    assert read_run(tmp_path).split == "val"


def test_a_relative_picture_path_starts_at_the_run_folder(tmp_path):
    path = write(
        tmp_path / "predictions.csv", "image_id,path,caption\na,Images/a.jpg,x\nb,/pictures/b.jpg,y\nc,,z\n"
    )

    assert [row.path for row in read_predictions(path)] == [
        str(tmp_path / "Images" / "a.jpg"),
        "/pictures/b.jpg",
        "",
    ]
