"""The audit of locked packages: known bad releases are found, and no answer is not "nothing found"."""

import runpy
import subprocess
from types import SimpleNamespace

import pytest

from tests.utils.composing import ROOT


@pytest.fixture
def audit():
    return runpy.run_path(str(ROOT / "scripts/audit.py"))


def test_malicious_releases_of_lightning_are_named(audit):
    (found,) = audit["find_known_bad"]([("pytorch-lightning", "2.6.2"), ("pytorch-lightning", "2.6.6")])
    assert "GHSA-w37p-236h-pfx3" in found


@pytest.mark.parametrize(
    ("status", "printed", "error"), [(1, "", "ConnectionError: no route"), (0, "torch could not be audited", "")]
)
def test_an_audit_without_answers_fails_loudly(audit, monkeypatch, capsys, status, printed, error):
    result = SimpleNamespace(returncode=status, stdout=printed, stderr=error)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: result)
    assert audit["audit"]([("torch", "2.15.0")]) == 2
    assert "NOT CHECKED" in capsys.readouterr().err
