"""The worker hands captions to pycocoevalcap's scorers and their numbers back, as one line of JSON."""

import io
import json
import runpy
import sys
from types import ModuleType

import pytest

from src.metrics import java_worker
from src.metrics.java_scorers import WORKER

REFERENCES = {"0": ["a dog runs", "a dog"], "1": ["a cat"]}
CANDIDATES = {"0": ["a dog"], "1": ["two cats"]}


class Meteor:
    """pycocoevalcap's, but for Java: a line of counts of each image, as its program answers."""

    def _stat(self, hypothesis_str, reference_list):
        return f"{len(hypothesis_str.split())}.0 {len(reference_list)}.0\n"

    def compute_score(self, references, candidates):
        assert references.keys() == candidates.keys()
        for name, (text,) in candidates.items():
            self._stat(text, references[name])
        return 0.5, [0.25, 0.75]


class Spice:
    """The same, in the order of sorted keys."""

    def compute_score(self, references, candidates):
        scores = [{"All": {"f": len(candidates[name][0])}, "Object": {"f": 9}} for name in sorted(references)]
        return 0.5, scores


@pytest.fixture(autouse=True)
def scorers(monkeypatch):
    for name, scorer in (("meteor", Meteor), ("spice", Spice)):
        module = ModuleType(name)
        setattr(module, scorer.__name__, scorer)
        monkeypatch.setitem(sys.modules, f"pycocoevalcap.{name}", ModuleType(name))
        monkeypatch.setitem(sys.modules, f"pycocoevalcap.{name}.{name}", module)


def test_meteor_comes_with_its_counts():
    found = java_worker.meteor(REFERENCES, CANDIDATES)
    assert found == {"corpus": 0.5, "per_image": [0.25, 0.75], "counts": [[2.0, 2.0], [2.0, 1.0]]}


def test_spice_is_the_f_score_of_all_tuples():
    assert java_worker.spice(REFERENCES, CANDIDATES) == {"corpus": 0.5, "per_image": [5, 8], "counts": None}


@pytest.mark.parametrize("name", ["meteor", "spice"])
def test_run_by_itself_it_reads_and_writes_json(monkeypatch, capsys, name):
    task = json.dumps({"references": REFERENCES, "candidates": CANDIDATES})
    monkeypatch.setattr(sys, "stdin", io.StringIO(task))
    monkeypatch.setattr(sys, "argv", [str(WORKER), name])
    runpy.run_path(str(WORKER), run_name="__main__")
    assert json.loads(capsys.readouterr().out) == getattr(java_worker, name)(REFERENCES, CANDIDATES)
