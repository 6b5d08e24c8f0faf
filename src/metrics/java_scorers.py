"""METEOR and SPICE: optional scores that need Java, checked before a run and stopped after a time limit.

Each runs in a process of its own (`python -m src.metrics.java_scorers NAME`, JSON in and out), since pycocoevalcap
waits for its Java program without a limit and a process can be killed.
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

from src.metrics.bootstrap import MetricResult, mean
from src.utils.errors import UserError

JARS = {
    "meteor": ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"),
    "spice": ("spice/spice-1.0.jar", "spice/lib/stanford-corenlp-3.6.0-models.jar"),
}
HOW_TO_GET = {
    "meteor": "install pycocoevalcap again",
    "spice": "python -m pycocoevalcap.spice.get_stanford_models downloads them, about 400 MB",
}
COMMAND = [sys.executable, "-m", __name__]
ROOT = Path(__file__).resolve().parents[2]
# UTF-8 and decimal points whatever the locale
JAVA_OPTIONS = "-Dfile.encoding=UTF-8 -Duser.language=en -Duser.country=US"


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
    return f"{Path(missing[0]).name} missing; {HOW_TO_GET[name]}" if missing else None


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
    """Compute METEOR or SPICE of N tokenized captions; line breaks and METEOR's separator `|||` become blanks.

    METEOR has no interval: its corpus score is no mean over images.

    Raises:
        JavaScorerFailed: no result within `timeout` seconds, or the scorer failed.
    """
    task: dict[str, dict[str, list[str]]] = {"candidates": {}, "references": {}}
    for index, texts in enumerate(zip(candidates, references, strict=True)):
        one_line = [" ".join(text.replace("|||", " ").split()) for text in (texts[0], *texts[1])]
        key = f"{index:09d}"  # SPICE's results come in sorted order
        task["candidates"][key], task["references"][key] = one_line[:1], one_line[1:]
    corpus, values = _run_process(name, json.dumps(task), timeout)
    per_image = np.nan_to_num(np.array(values, np.float64))  # SPICE of a caption without anything to parse
    if name == "meteor":
        return MetricResult({name: corpus}, {name: per_image}, {})
    return MetricResult({name: float(per_image.mean())}, {name: per_image}, {name: mean(per_image)})


def _run_process(name: str, task: str, timeout: float) -> tuple[float, list[float]]:
    """Return corpus and per-image scores; the process is killed with its Java program when it takes too long."""
    options = f"{os.environ.get('JAVA_TOOL_OPTIONS', '')} {JAVA_OPTIONS}".strip()
    process = subprocess.Popen(
        [*COMMAND, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, encoding="utf-8", cwd=ROOT, start_new_session=True,
        env={**os.environ, "JAVA_TOOL_OPTIONS": options, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    try:
        output, errors = process.communicate(task, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise JavaScorerFailed(f"no result within {timeout:g} seconds") from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # its Java program too
            else:
                process.kill()
        process.wait()
    if process.returncode != 0 or not output.strip():
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), "no message")
        raise JavaScorerFailed(f"it failed: {last.strip()}")
    corpus, per_image = json.loads(output.splitlines()[-1])
    return corpus, per_image


def main() -> None:
    """Read a task from standard input and print [corpus, per image] as the last line."""
    task, name = json.load(sys.stdin), sys.argv[1]
    if name == "meteor":
        from pycocoevalcap.meteor.meteor import Meteor

        corpus, per_image = Meteor().compute_score(task["references"], task["candidates"])
    else:
        from pycocoevalcap.spice.spice import Spice

        corpus, details = Spice().compute_score(task["references"], task["candidates"])
        per_image = [scores["All"]["f"] for scores in details]
    print(json.dumps([corpus, list(per_image)]))


if __name__ == "__main__":
    main()
