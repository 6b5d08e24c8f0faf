"""The rules of the house that a machine can hold: who imports whom, sizes, pinned tools, make's help."""

import ast
import subprocess
import sys
import tomllib

import pytest

from tests.utils.composing import ROOT

ORDER = ("utils", "datamodule", "models", "callbacks", "metrics", "report", "evaluate", "tasks")
ENTRIES = ("train.py", "eval.py")
FILES = sorted((ROOT / "src").rglob("*.py"))
MAX_LINES = 320
HEAVY = {"torch", "transformers", "pytorch_lightning", "pandas", "torchvision"}


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


def test_tasks_are_imported_by_entries_alone():
    for file in FILES:
        if file.parent.name != "tasks":
            names = set(imports(ast.parse(file.read_text(encoding="utf-8"))))
            assert not any(name.startswith("src.tasks") for name in names), file


@pytest.mark.parametrize(
    "file", [ROOT / name for name in ENTRIES] + sorted((ROOT / "src/utils").glob("*.py")), ids=str
)
def test_entries_and_utils_import_nothing_heavy_at_their_top(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {name.partition(".")[0] for name in imports(ast.Module(tree.body[:], []))}
    inside = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in imports(node)
    }
    assert not (names - inside) & HEAVY


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_short_and_swallow_nothing(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            assert not all(isinstance(line, ast.Pass) for line in node.body), (
                f"line {node.lineno} hides an error"
            )
            assert node.type is not None, f"line {node.lineno} catches everything"


def test_pre_commit_runs_the_locked_tools():
    locked = {
        item["name"]: item["version"]
        for item in tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    }
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    for name in ("ruff", "codespell", "nbstripout"):
        assert f"[{name}=={locked[name]}]" in hooks


@pytest.mark.skipif(sys.platform == "win32", reason="make is not there")
def test_make_alone_tells_what_it_can_do():
    told = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "train", "test", "lint", "clean"):
        assert f"make {target} " in told
