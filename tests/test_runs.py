"""The table over runs."""

import json

import pytest

from src.runs import main, read_runs, sort_runs
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
    return [name.rpartition("/")[2] for name in runs["run"]]


def test_best_first_whether_lower_or_higher_is_better(logs):
    runs = read_runs(logs)
    assert names(sort_runs(runs, "test/cider_d")) == ["second", "first", "third"]
    assert names(sort_runs(runs, "test/loss")) == ["second", "first", "third"]


def test_the_table_shows_what_differs(logs, capsys):
    main([f"dir={logs}", "columns=test/loss", "sort=test/cider_d"])
    text = capsys.readouterr().out
    assert text.index("second") < text.index("first") < text.index("third")
    assert "seed=2" in text
    assert "experiment=demo" not in text  # the same in all runs
    assert "stopped" in text
    assert "cider_d" in text  # the metric that sorts is shown


def test_runs_on_one_test_set_stand_together_in_lines_of_100_columns(logs, capsys):
    for name, ids in (("first", "ab"), ("second", "ac"), ("third", "ab")):
        lines = ["image_id,caption", *(f"{image_id},a dog" for image_id in ids)]
        (logs / "train/runs" / name / "predictions.csv").write_text("\n".join(lines))
        (logs / "train/runs" / name / "config_resolved.yaml").write_text("datamodule: {data_dir: /data/flickr8k}")
    for name in ("gone", "also"):
        (logs / "train/runs" / name).mkdir()
        (logs / "train/runs" / name / "run.json").write_text('{"status": "failed"}')
    main([f"dir={logs}"])
    text = capsys.readouterr().out
    assert text.index("second") < text.index("first") < text.index("third")
    assert text.count("flickr8k       2") == 3
    assert max(map(len, text.splitlines())) <= 100
    assert "without scores: 2 failed" in text


def test_unreadable_files_are_logged_and_skipped(logs, caplog):
    for name, text in (("a", "{"), ("b", "[1]"), ("c", '{"x": "word"}'), ("d", '{"test/cider_d": 1}')):
        (logs / name).mkdir()
        (logs / name / "metrics.json").write_text(text)
    (logs / "d" / "run.json").write_text("not json")
    assert names(read_runs(logs)) == ["d", "first", "second", "third"]
    assert caplog.text.count("skipped") == 3


def test_two_runs_are_compared_image_by_image(tmp_path, capsys):
    rows = dict.fromkeys(("a", "b", "other"), "image_id,caption,reference_1,loss,num_tokens\n")
    for k, thing in enumerate(("dog", "cat", "bird", "horse")):
        rows["a"] += f"{k}.jpg,a {thing} runs,a {thing} is on the grass,3.0,{5 + k}\n"
        rows["b"] += f"{k}.jpg,a {thing} is on the grass,a {thing} is on the grass,1.0,{5 + k}\n"
        rows["other"] += f"{k}.jpg,a {thing},another {thing},1.0,5\n"
    for name, text in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.csv").write_text(text)
    a, b, other = (tmp_path / name for name in rows)
    main([f"compare={a},{b}"])
    text = capsys.readouterr().out
    assert "-2.000 (-2.000 – -2.000)" in text  # of the loss
    assert "difference" in text
    for folders in (f"{a},{other}", f"{a}", f"{a},{tmp_path}"):
        with pytest.raises(UserError, match=r"^compare: .*; expected two run"):
            main([f"compare={folders}"])


def test_mistakes_are_named(logs, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["sort=test/cidr"], "sort=test/cidr is in no run; expected one of test/cider_d, test/loss"),
        ([f"dir={tmp_path / 'nowhere'}"], "holds no metrics.json"),
        ([f"dir={tmp_path / 'empty'}"], r"holds no metrics.json"),
    ):
        with pytest.raises(UserError, match=message):
            main([f"dir={logs}", *arguments])
