"""The table over runs."""

import csv
import json

import pytest

from src.runs import main, read_runs, sort_runs, write_table
from src.utils.errors import UserError


@pytest.fixture
def logs(tmp_path):
    def run(name, overrides=(), status="finished", **metrics):
        folder = tmp_path / "train" / "runs" / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in overrides))
        (folder / "run.json").write_text(json.dumps({"status": status}))
        (folder / "metrics.json").write_text(json.dumps(metrics))

    run("first", ["experiment=demo", "seed=1"], **{"test/cider_d": 0.5, "test/loss": 2.0})
    run("second", ["experiment=demo", "seed=2"], **{"test/cider_d": 1.5, "test/loss": 1.0})
    run("third", ["experiment=demo"], "stopped", **{"test/loss": 3.0})
    return tmp_path


def names(runs):
    return [run.name.rpartition("/")[2] for run in runs]


def test_best_first_whichever_way_the_metric_goes(logs):
    runs = read_runs(logs)
    assert names(sort_runs(runs, "test/cider_d")) == ["second", "first", "third"]
    assert names(sort_runs(runs, "test/loss")) == ["second", "first", "third"]
    assert names(sort_runs(runs, "-test/cider_d")) == ["first", "second", "third"]
    assert names(sort_runs(runs, "-test/loss")) == ["third", "first", "second"]


def test_the_table_shows_what_differs(logs, capsys):
    main([f"dir={logs}"])
    text = capsys.readouterr().out
    assert text.index("second") < text.index("first") < text.index("third")
    assert "seed=2" in text
    assert "experiment=demo" not in text  # of all runs, so that it tells nothing
    assert "stopped" in text
    assert "1.5" in text


def test_a_metric_that_is_sorted_by_is_shown(logs, capsys):
    main([f"dir={logs}", "columns=test/loss", "sort=test/cider_d"])
    assert "cider_d" in capsys.readouterr().out


def test_the_title_names_the_folder_that_all_have_in_common(logs, capsys):
    main([f"dir={logs}"])
    assert "3 runs in train/runs" in capsys.readouterr().out
    other = logs / "evaluation"
    other.mkdir()
    (other / "metrics.json").write_text('{"test/cider_d": 1}')
    main([f"dir={logs}"])
    assert capsys.readouterr().out.split("\n")[0].rstrip() == "4 runs"


def test_a_misspelt_metric_is_told_the_nearest(logs):
    with pytest.raises(UserError, match="sort=test/cidr is in no run; did you mean test/cider_d"):
        main([f"dir={logs}", "sort=test/cidr"])


def test_all_metrics_as_csv(logs, capsys):
    (logs / "=1+1").mkdir()
    (logs / "=1+1" / "metrics.json").write_text('{"test/cider_d": 9}')
    main([f"dir={logs}", f"out={logs / 'runs.csv'}"])
    with open(logs / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["run"] == "'=1+1"
    assert rows[1]["test/loss"] == "1.0"
    assert rows[1]["overrides"] == "experiment=demo seed=2"
    assert rows[3]["test/cider_d"] == ""
    write_table(sort_runs(read_runs(logs), "test/loss"), logs / "again.csv")


def test_broken_files_are_told_and_left_out(logs, caplog):
    for name, text in (("a", "{"), ("b", "[1]"), ("c", '{"x": "word"}')):
        (logs / name).mkdir()
        (logs / name / "metrics.json").write_text(text)
    (logs / "d").mkdir()
    (logs / "d" / "metrics.json").write_text('{"test/cider_d": 1}')
    (logs / "d" / "run.json").write_text("not json")
    assert names(read_runs(logs)) == ["d", "first", "second", "third"]
    assert caplog.text.count("left out") == 3


def test_help(capsys):
    main(["--help"])
    assert "sort=test/cider_d" in capsys.readouterr().out


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_runs(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no metrics.json"):
        read_runs(tmp_path)


def test_a_metric_of_no_run(logs):
    with pytest.raises(UserError, match="expected one of test/cider_d, test/loss"):
        sort_runs(read_runs(logs), "accuracy")
