"""METEOR and SPICE: optional scores that need Java, checked before a run and stopped after a time limit.

N images.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from src.metrics.bootstrap import Floats, MetricResult, SufficientStatistic, mean
from src.utils.errors import UserError

JARS = {
    "meteor": ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"),
    "spice": (
        "spice/spice-1.0.jar",
        "spice/lib/stanford-corenlp-3.6.0.jar",
        "spice/lib/stanford-corenlp-3.6.0-models.jar",
    ),
}
HOW_TO_GET = {
    "meteor": "install pycocoevalcap again",
    "spice": "python -m pycocoevalcap.spice.get_stanford_models downloads them, about 400 MB",
}
WORKER = Path(__file__).with_name("java_worker.py")
# UTF-8 and decimal points whatever the locale
JAVA_OPTIONS = "-Dfile.encoding=UTF-8 -Duser.language=en -Duser.country=US"
# METEOR 1.5 for English: weights of exact, stem, synonym and paraphrase matches, and its four parameters
STAGES = np.array([1.0, 0.6, 0.8, 0.6])
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75


class JavaScorerFailed(Exception):
    """A Java scorer gave no result; the message has the reason."""


@cache
def unavailable_reason(name: str) -> str | None:
    """Return why `name` ("meteor" or "spice") cannot run on this machine; None where it can."""
    java = shutil.which("java")
    if java is None:
        return "java is not on the PATH"
    try:
        subprocess.run([java, "-version"], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return f"{java} -version does not work"
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or []]
    missing = [jar for jar in JARS[name] if not any((folder / jar).is_file() for folder in folders)]
    if missing:
        return f"{', '.join(Path(jar).name for jar in missing)} missing; {HOW_TO_GET[name]}"
    return None


def skip_reason(name: str, setting: bool | str) -> str | None:
    """Return why `name` is skipped under its setting true or "auto" (where it can run); None where it runs.

    Raises:
        UserError: the setting is true and the scorer cannot run, or is neither.
    """
    if setting not in (True, "auto"):
        raise UserError(f"metrics.{name}={setting!r}; expected true, false or auto; set metrics.{name}=auto")
    reason = unavailable_reason(name)
    if reason and setting is True:
        raise UserError(
            f"metrics.{name}=true; expected a machine that can run it, but {reason}; set it to auto"
        )
    return reason


def run(
    name: str, candidates: Sequence[str], references: Sequence[Sequence[str]], timeout: float
) -> MetricResult:
    """Compute METEOR or SPICE of tokenized captions; line breaks and METEOR's separator `|||` become blanks.

    Raises:
        JavaScorerFailed: no result within `timeout` seconds, or the scorer failed.
    """
    keys = [f"{index:09d}" for index in range(len(candidates))]  # SPICE's results come in sorted order
    one_line = [[" ".join(text.replace("|||", " ").split()) for text in (c, *texts)]
                for c, texts in zip(candidates, references, strict=True)]  # fmt: skip
    task = {
        "candidates": {key: texts[:1] for key, texts in zip(keys, one_line, strict=True)},
        "references": {key: texts[1:] for key, texts in zip(keys, one_line, strict=True)},
    }
    result = _run_worker(name, json.dumps(task), timeout)
    per_image = np.array(result["per_image"], np.float64)
    if name == "meteor":
        counts = _without_whole_chunks(np.array(result["counts"], np.float64))
        statistic = SufficientStatistic(counts, meteor_of_counts)
        return MetricResult({name: result["corpus"]}, {name: per_image}, {name: statistic})
    per_image = np.nan_to_num(per_image)  # SPICE of a caption without anything to parse
    return MetricResult({name: float(per_image.mean())}, {name: per_image}, {name: mean(per_image)})


def meteor_of_counts(counts: Floats) -> Floats:
    """(R, 23) sums of METEOR's counts -> (R,) scores.

    The counts: words of candidate and reference, function words of both, then for each of four stages matched
    content words of both and matched function words of both, chunks, matched words of both.
    """
    words, function_words = counts[:, 0:2], counts[:, 2:4]
    matches = counts[:, 4:20].reshape(-1, 4, 4)
    weighted = DELTA * matches[:, :, 0:2] + (1 - DELTA) * matches[:, :, 2:4]  # (R, 4 stages, 2 sides)
    found = np.einsum("s,rst->rt", STAGES, weighted)
    total = DELTA * (words - function_words) + (1 - DELTA) * function_words
    precision, recall = _divide(found, total).T
    f_mean = _divide(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    fragments = _divide(counts[:, 20], counts[:, 21:23].mean(axis=1))
    return f_mean * (1 - GAMMA * fragments**BETA)


def _divide(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _without_whole_chunks(counts: Floats) -> Floats:
    """(N, 23): a candidate that equals a reference word for word has no chunk, in METEOR's sums as alone."""
    whole = (counts[:, 20] == 1) & (counts[:, 21:23] == counts[:, 0:2]).all(axis=1)
    counts[whole, 20] = 0
    return counts


def _run_worker(name: str, task: str, timeout: float) -> dict:
    """Return the result of `java_worker`, which is killed with its Java program when it takes too long."""
    options = f"{os.environ.get('JAVA_TOOL_OPTIONS', '')} {JAVA_OPTIONS}".strip()
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "JAVA_TOOL_OPTIONS": options, "PYTHONIOENCODING": "utf-8"},
        start_new_session=True,
    )
    try:
        output, errors = worker.communicate(task, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise JavaScorerFailed(f"no result within {timeout:g} seconds") from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            if hasattr(os, "killpg"):
                os.killpg(worker.pid, signal.SIGKILL)  # its Java program too
            else:
                worker.kill()
        worker.wait()
    if worker.returncode != 0 or not output.strip():
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), "no message")
        raise JavaScorerFailed(f"it failed: {last.strip()}")
    return json.loads(output.splitlines()[-1])
