"""The architecture: which package imports which, and entries that start at once."""

import ast
import subprocess
import sys

import pytest

from tests.utils.composing import ROOT

ORDER = ("utils", "datamodule", "models", "metrics", "callbacks", "report", "evaluate", "tasks")
HEAVY = ("torch", "transformers", "pytorch_lightning", "pandas", "torchvision", "matplotlib", "peft")


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_from_those_before_it(package):
    later = set(ORDER[ORDER.index(package) + 1 :])
    files = [
        file for file in (ROOT / "src").rglob("*.py") if file.relative_to(ROOT / "src").parts[0].startswith(package)
    ]
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                for name in (prefix + alias.name for alias in node.names):
                    assert not (name.startswith("src.") and name.split(".")[1] in later), f"{file} imports {name}"


@pytest.mark.parametrize("entry", ["train", "eval"])
def test_an_entry_imports_nothing_heavy(entry):
    code = f"import sys; sys.argv = ['{entry}.py']; import {entry}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not set(HEAVY) & set(loaded.split())


def test_the_table_of_runs_needs_neither_torch_nor_matplotlib():
    code = "import sys; from src.runs import main; main(['dir=src/demo']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "matplotlib"} & set(loaded.split())


def test_a_checkpoint_opens_without_what_only_training_needs():
    code = "\n".join((
        "import sys; from src.utils.entry import heavy_imports",
        "with heavy_imports(): from src.captioner import Captioner",
        "Captioner.from_checkpoint(sys.argv[1]); print(*sys.modules)",
    ))  # fmt: skip
    command = [sys.executable, "-c", code, "src/demo/flickr/checkpoints/best.ckpt"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"pytorch_lightning", "pandas", "matplotlib", "datasets", "peft"} & set(ended.stdout.split())
    assert ended.stderr == ""  # libraries report what is not freed at the end
