"""METEOR and SPICE: reported beforehand where they cannot run, stopped when they take too long."""

import json
import sys
import time

import pytest

from src.metrics import java_scorers
from src.metrics.java_scorers import JavaScorerFailed, run, skip_reason
from src.utils.errors import UserError


@pytest.fixture
def java(monkeypatch, tmp_path):
    """Put a java that exits with the given status, or none, first on the PATH."""

    def make(status=None):
        if status is not None:
            (tmp_path / "java").write_text(f"#!/bin/sh\nexit {status}\n")
            (tmp_path / "java").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path) + ("" if status is None else ":/bin:/usr/bin"))

    return make


def worker(monkeypatch, tmp_path, body):
    """Run this instead of the real worker."""
    path = tmp_path / "worker.py"
    path.write_text(f"import json, sys, time, subprocess\ntask = json.load(sys.stdin)\n{body}\n")
    monkeypatch.setattr(java_scorers, "COMMAND", [sys.executable, str(path)])


@pytest.mark.parametrize("status", [None, 1])
def test_what_is_missing_is_the_reason(java, status, monkeypatch):
    java(status)
    assert "java is not on the PATH" in skip_reason("meteor", "auto")
    with pytest.raises(UserError, match=r"metrics.meteor=True; .*java is not on the PATH.*meteor=auto"):
        skip_reason("meteor", True)
    java(0)
    monkeypatch.setitem(java_scorers.JARS, "spice", "spice/lib/not-there.jar")
    assert "not-there.jar is missing" in skip_reason("spice", "auto")
    assert skip_reason("meteor", "auto") is None


def test_captions_reach_the_scorer_on_one_line(monkeypatch, tmp_path):
    result = "{'corpus': 0.5, 'per_image': [len(t[0]) for t in task['candidates'].values()]}"
    body = f"print('noise')\nassert chr(10) not in str(task)\nprint(json.dumps({result}))"
    worker(monkeypatch, tmp_path, body)
    scores = run("spice", ["a\nb", "a ||| b\r\n"], [["c\n"], ["d"]], timeout=60)
    assert scores.per_image.tolist() == [3, 3]
    assert scores.corpus == 3  # the mean over images
    # a caption that was not parsed counts as nothing
    worker(monkeypatch, tmp_path, 'print(\'{"corpus": NaN, "per_image": [0.5, NaN]}\')')
    assert run("spice", ["a", ""], [["a"], ["b"]], timeout=60).corpus == 0.25


def test_a_hanging_scorer_is_stopped_with_its_children(monkeypatch, tmp_path):
    beat = tmp_path / "beat"
    child = f"import time\nwhile True: open({str(beat)!r}, 'a').write('.'); time.sleep(0.05)"
    worker(monkeypatch, tmp_path, f"subprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(600)")
    started = time.monotonic()
    with pytest.raises(JavaScorerFailed, match="no result within 1 seconds"):
        run("meteor", ["a"], [["a"]], timeout=1)
    assert time.monotonic() - started < 20
    size = beat.stat().st_size if beat.exists() else 0
    time.sleep(0.2)
    assert (beat.stat().st_size if beat.exists() else 0) == size


def test_a_scorer_that_breaks_off_tells_why(monkeypatch, tmp_path):
    worker(monkeypatch, tmp_path, "raise SystemExit('no memory left')")
    with pytest.raises(JavaScorerFailed, match="it failed: no memory left"):
        run("meteor", ["a"], [["a"]], timeout=60)


def test_spice_is_the_f_score_of_all_tuples(monkeypatch):
    from pycocoevalcap.spice.spice import Spice

    def compute_score(self, references, candidates):
        return 0.5, [{"All": {"f": len(candidates[key][0])}, "Object": {"f": 9}} for key in sorted(references)]

    monkeypatch.setattr(Spice, "__init__", lambda self: None)  # its own downloads models
    monkeypatch.setattr(Spice, "compute_score", compute_score)
    found = java_scorers.compute("spice", {"0": ["a"], "1": ["b"]}, {"0": ["a dog"], "1": ["two cats"]})
    assert found["per_image"] == [5, 8]


@pytest.mark.slow
def test_published_meteor(shared_data):
    if reason := skip_reason("meteor", "auto"):
        pytest.skip(reason)
    vector = json.loads((shared_data / "metric_vectors" / "01_nlgeval.json").read_text())
    scores = run("meteor", list(vector["hyps"].values()), list(vector["refs"].values()), timeout=600)
    assert scores.corpus == pytest.approx(vector["expected"]["METEOR"], abs=1e-6)
    assert len(scores.per_image) == len(vector["hyps"])
