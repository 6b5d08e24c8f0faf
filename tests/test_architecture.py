"""The architecture: which package imports which, sizes, light entries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.utils.composing import ROOT

ORDER = ("utils", "datamodule", "models", "metrics", "callbacks", "report", "evaluate", "tasks")
FILES = sorted((ROOT / "src").rglob("*.py"))
MAX_LINES = 320
HEAVY = ("torch", "transformers", "pytorch_lightning", "pandas", "torchvision", "matplotlib", "peft")


def imports(tree):
    """Every module that a file imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_from_those_before_it(package):
    allowed = set(ORDER[: ORDER.index(package) + 1])
    top = ROOT / "src" / package
    files = sorted(top.rglob("*.py")) if top.is_dir() else [top.with_suffix(".py")]
    assert files
    for file in files:
        for module in imports(ast.parse(file.read_text(encoding="utf-8"))):
            parts = module.split(".")
            if parts[0] == "src" and len(parts) > 1 and parts[1] in ORDER:
                assert parts[1] in allowed, f"{file.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("entry", ["train", "eval"])
def test_an_entry_imports_nothing_heavy(entry):
    code = f"import sys; sys.argv = ['{entry}.py']; import {entry}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not set(HEAVY) & set(loaded.split())


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_short_and_swallow_no_error(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            assert not all(isinstance(line, ast.Pass) for line in node.body), f"line {node.lineno} hides an error"
            assert node.type is not None, f"line {node.lineno} catches everything"


@pytest.mark.skipif(not Path("/usr/bin/make").exists(), reason="needs make")
def test_make_without_a_target_lists_the_targets():
    printed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "train", "test", "lint", "clean"):
        assert f"make {target} " in printed
