"""METEOR and SPICE: reported beforehand where they cannot run, stopped when they take too long."""

import sys
import time

import pytest

from src.metrics import java_scorers
from src.metrics.java_scorers import JavaScorerFailed, run, skip_reason, unavailable_reason
from src.utils.errors import UserError
from tests.metrics.reference import needs_java


@pytest.fixture(autouse=True)
def ask_anew():
    """Forget what this machine can run, before and after."""
    unavailable_reason.cache_clear()
    yield
    unavailable_reason.cache_clear()


def scorer(monkeypatch, tmp_path, body):
    """Run this program instead of the real scorer."""
    path = tmp_path / "scorer.py"
    path.write_text(f"import json, sys, time, subprocess\ntask = json.load(sys.stdin)\n{body}\n")
    monkeypatch.setattr(java_scorers, "COMMAND", [sys.executable, str(path)])


def test_no_java_is_the_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unavailable_reason("meteor") == "java is not on the PATH"
    assert skip_reason("meteor", "auto") == "java is not on the PATH"


def test_a_java_that_does_not_start_is_the_reason(monkeypatch, tmp_path):
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unavailable_reason("meteor").endswith("java -version does not work")


def test_missing_jars_are_the_reason(monkeypatch, tmp_path):
    (tmp_path / "java").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setitem(java_scorers.JARS, "spice", ("spice/lib/not-there.jar",))
    assert unavailable_reason("spice").startswith(
        "not-there.jar missing; python -m pycocoevalcap.spice.get_stanford_models"
    )
    assert unavailable_reason("meteor") is None


def test_demanded_in_vain_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"metrics.meteor=true; expected a machine that can run it, but java is not"
    ):
        skip_reason("meteor", True)


def test_another_setting_is_an_error():
    with pytest.raises(UserError, match=r"metrics.spice='yes'; expected true, false or auto"):
        skip_reason("spice", "yes")


def test_captions_reach_the_scorer_on_one_line(monkeypatch, tmp_path):
    answer = "[0.5, [len(texts[0]) for texts in task['candidates'].values()]]"
    scorer(
        monkeypatch, tmp_path, f"print('noise')\nassert chr(10) not in str(task)\nprint(json.dumps({answer}))"
    )
    scores = run("spice", ["a\nb", "a ||| b\r\n"], [["c\n"], ["d"]], timeout=60)
    assert scores.per_image["spice"].tolist() == [3, 3]
    assert scores.corpus["spice"] == 3  # the mean over images


def test_an_unparsed_caption_counts_as_nothing(monkeypatch, tmp_path):
    scorer(monkeypatch, tmp_path, "print('[NaN, [0.5, NaN]]')")
    assert run("spice", ["a", ""], [["a"], ["b"]], timeout=60).corpus["spice"] == 0.25


def test_a_hanging_scorer_is_stopped_with_its_children(monkeypatch, tmp_path):
    beat = tmp_path / "beat"
    child = f"import time\nwhile True: open({str(beat)!r}, 'a').write('.'); time.sleep(0.05)"
    scorer(monkeypatch, tmp_path, f"subprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(600)")
    started = time.monotonic()
    with pytest.raises(JavaScorerFailed, match="no result within 2 seconds"):
        run("meteor", ["a"], [["a"]], timeout=2)
    assert time.monotonic() - started < 20
    size = beat.stat().st_size if beat.exists() else 0
    time.sleep(0.3)
    assert (beat.stat().st_size if beat.exists() else 0) == size


def test_a_scorer_that_breaks_off_tells_why(monkeypatch, tmp_path):
    scorer(monkeypatch, tmp_path, "raise SystemExit('no memory left')")
    with pytest.raises(JavaScorerFailed, match="it failed: no memory left"):
        run("meteor", ["a"], [["a"]], timeout=60)


@needs_java
@pytest.mark.slow
def test_published_meteor(shared_data):
    import json

    if unavailable_reason("meteor"):
        pytest.skip(unavailable_reason("meteor"))
    vector = json.loads((shared_data / "metric_vectors" / "01_nlgeval.json").read_text())
    [single] = vector["individual"]
    found = [*vector["hyps"].values(), single["hyp"], "line\nbreak", ""]
    texts = [*vector["refs"].values(), single["refs"], ["line break"], ["x"]]
    scores = run("meteor", found, texts, timeout=600)
    assert scores.per_image["meteor"][2] == pytest.approx(single["expected"]["METEOR"], abs=1e-6)
    assert scores.per_image["meteor"][3:].tolist() == [1, 0]
