"""METEOR and SPICE: optional scores that need Java, checked before a run and stopped after a time limit.

Run as a program, this file is the process of one scorer: JSON on standard input, JSON as the last line out.
pycocoevalcap waits for its Java programs without a limit, and a process can be killed. N images.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocoevalcap

from src.metrics.bootstrap import Score, mean
from src.utils.errors import UserError

JARS = {"meteor": "meteor/meteor-1.5.jar", "spice": "spice/lib/stanford-corenlp-3.6.0-models.jar"}
COMMAND = [sys.executable, "-m", "src.metrics.java_scorers"]
JAVA_OPTIONS = "-Dfile.encoding=UTF-8 -Duser.language=en -Duser.country=US"  # whatever the locale


class JavaScorerFailed(Exception):
    """A Java scorer gave no result; the message has the reason."""


def skip_reason(name: str, setting: bool | str) -> str | None:
    """Return why `name` ("meteor" or "spice") cannot run here under its setting true or "auto"; None where it can.

    UserError where the setting is true and the scorer cannot run, or is neither.
    """
    java, reason = shutil.which("java"), None
    if java is None or subprocess.run([java, "-version"], capture_output=True).returncode:
        reason = "java is not on the PATH or does not start"
    elif not Path(pycocoevalcap.__path__[0], JARS[name]).is_file():
        reason = f"{JARS[name]} is missing (400 MB): python -m pycocoevalcap.spice.get_stanford_models"
    if setting not in (True, "auto") or (reason and setting is True):
        found = f"metrics.{name}={setting!r}; expected true, false or auto"
        raise UserError(f"{found}; {reason or 'auto runs it where it can run'}; set metrics.{name}=auto")
    return reason


def run(name: str, candidates: Sequence[str], references: Sequence[Sequence[str]], timeout: float) -> Score:
    """Compute METEOR or SPICE of tokenized captions; line breaks and METEOR's separator `|||` become blanks.

    Raises JavaScorerFailed without a result within `timeout` seconds, or where the scorer failed.
    """
    texts = {"references": references, "candidates": [[text] for text in candidates]}
    task = {  # SPICE's results come in sorted order
        side: {f"{k:09d}": [" ".join(text.replace("|||", " ").split()) for text in own] for k, own in enumerate(lists)}
        for side, lists in texts.items()
    }
    result = _run_worker(name, json.dumps(task), timeout)
    per_image = np.nan_to_num(np.array(result["per_image"], np.float64))  # SPICE's of a caption without a scene
    # METEOR has no interval: the corpus score is no mean over images.
    return Score(result["corpus"], per_image) if name == "meteor" else mean(per_image)


def _run_worker(name: str, task: str, timeout: float) -> dict[str, Any]:
    """Return the result of a process of this file, killed with its Java program when it takes too long."""
    options = f"{os.environ.get('JAVA_TOOL_OPTIONS', '')} {JAVA_OPTIONS}".strip()
    environment = {**os.environ, "JAVA_TOOL_OPTIONS": options, "PYTHONIOENCODING": "utf-8"}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"encoding": "utf-8"}
    root = Path(__file__).parents[2]
    worker = subprocess.Popen([*COMMAND, name], cwd=root, env=environment, start_new_session=True, **pipes)
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
        raise JavaScorerFailed(f"it failed: {(errors.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(output.splitlines()[-1])


def compute(name: str, references: dict[str, list[str]], candidates: dict[str, list[str]]) -> dict[str, Any]:
    """Score in this process: of the corpus, and per image in the order of sorted keys."""
    if name == "meteor":
        from pycocoevalcap.meteor.meteor import Meteor

        corpus, per_image = Meteor().compute_score(references, candidates)
    else:
        from pycocoevalcap.spice.spice import Spice

        corpus, details = Spice().compute_score(references, candidates)
        per_image = [scores["All"]["f"] for scores in details]
    return {"corpus": corpus, "per_image": list(per_image)}


if __name__ == "__main__":
    print(json.dumps(compute(sys.argv[1], **json.load(sys.stdin))))
