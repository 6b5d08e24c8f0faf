"""Private members of libraries are used in few places, each behind a fallback or a test that shows when it can go."""

import ast
from collections.abc import Iterator
from pathlib import Path

ALLOWED = ("src/utils/lightning_compat.py", "src/models/kernels/", "src/models/pretrained.py")
MOST = 12
DOCUMENTED = {"_replace", "_asdict", "_fields", "_exit"}  # of named tuples and of os


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_") and name not in DOCUMENTED


def names_defined(tree: ast.AST) -> Iterator[str]:
    """The private names that our own code gives to functions, classes, variables and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr if ast.unparse(node.value) == "self" else ""


def names_used(tree: ast.AST) -> Iterator[str]:
    """The private names that are read from an object, by `getattr` too, or imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            yield from (part for module in modules for part in module.split("."))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            yield from (str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant))


def test_private_members_of_libraries_are_few_and_in_their_places(root: Path) -> None:
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted((root / "src").rglob("*.py"))}
    own = {name for tree in trees.values() for name in names_defined(tree)}
    found = [
        (path.relative_to(root).as_posix(), name)
        for path, tree in trees.items() for name in names_used(tree) if is_private(name) and name not in own
    ]  # fmt: skip
    elsewhere = [f"{path}: {name}" for path, name in found if not path.startswith(ALLOWED)]
    assert elsewhere == []
    assert len(found) <= MOST, found
    assert found, "nothing is found: the test itself is wrong"
