"""What a `_target_` takes, read from its source without importing it: checks cost no second of imports."""

import ast
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

MAX_HOPS = 8  # re-exports and base classes that are followed


@dataclass(frozen=True, slots=True)
class Signature:
    """Names that a call takes, each with its annotation as written, "" where there is none.

    open: whether it also takes names that are not listed (**kwargs that lead nowhere that could be read).
    """

    parameters: dict[str, str]
    required: frozenset[str]
    open: bool


@dataclass(frozen=True, slots=True)
class _Definition:
    node: ast.ClassDef | ast.FunctionDef
    module: str


def read_signature(target: str) -> Signature | None:
    """The signature of a class's `__init__` or of a function, None where the source does not tell.

    target: a dotted path, as in a config's `_target_`.
    """
    module, _, name = target.rpartition(".")
    found = _find(module, name, MAX_HOPS)
    return _signature(found, MAX_HOPS) if found else None


def is_missing(target: str) -> str | None:
    """The top package of a target where it is not installed, or the target where the package lacks it."""
    top = target.partition(".")[0]
    if _package_file(top) is None:
        return top
    module, _, name = target.rpartition(".")
    tree = _parse(module)
    if tree is None or not target.startswith("src."):
        return None
    return None if _find(module, name, MAX_HOPS) else target


def _signature(found: _Definition, hops: int) -> Signature | None:
    if isinstance(found.node, ast.FunctionDef):
        return _from_arguments(found.node.args, skip=0)
    init = _method(found.node, "__init__")
    if init is not None:
        own = _from_arguments(init.args, skip=1)
        if not own.open:
            return own
    else:
        own = _fields(found.node) if _is_dataclass(found.node) else Signature({}, frozenset(), True)
        if not own.open:
            return own
    return _with_bases(found, own, hops)


def _with_bases(found: _Definition, own: Signature, hops: int) -> Signature:
    """What **kwargs, or a missing `__init__`, leaves to the base classes."""
    assert isinstance(found.node, ast.ClassDef)
    for base in found.node.bases:
        text = ast.unparse(base)
        parent = _find_name(found.module, text, hops - 1) if hops else None
        inherited = _signature(parent, hops - 1) if parent else None
        if inherited:
            parameters = {**inherited.parameters, **own.parameters}
            return Signature(
                parameters, own.required | (inherited.required - set(own.parameters)), inherited.open
            )
    return own


def _from_arguments(arguments: ast.arguments, skip: int) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    optional = {arg.arg for arg in positional[len(positional) - len(arguments.defaults) :]}
    optional |= {a.arg for a, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value}
    listed = [*positional[skip:], *arguments.kwonlyargs]
    parameters = {arg.arg: ast.unparse(arg.annotation) if arg.annotation else "" for arg in listed}
    return Signature(parameters, frozenset(parameters) - optional, arguments.kwarg is not None)


def _fields(node: ast.ClassDef) -> Signature:
    lines = [
        item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    parameters = {
        line.target.id: ast.unparse(line.annotation) for line in lines if isinstance(line.target, ast.Name)
    }
    given = {line.target.id for line in lines if line.value is not None and isinstance(line.target, ast.Name)}
    return Signature(parameters, frozenset(parameters) - given, False)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == name), None)


def _find(module: str, name: str, hops: int) -> _Definition | None:
    """The class or function `name` of a module, through `from ... import` of other modules."""
    tree = _parse(module)
    if tree is None or hops < 1:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return _Definition(node, module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(_origin(node, module), alias.name, hops - 1)
    return None


def _find_name(module: str, text: str, hops: int) -> _Definition | None:
    """A base class as it is written: `Name`, or `package.module.Name` where that is imported whole."""
    head, _, name = text.rpartition(".")
    return _find(head or module, name, hops)


def _origin(node: ast.ImportFrom, module: str) -> str:
    """The absolute module of a `from ... import`."""
    if not node.level:
        return node.module or ""
    file = _module_file(module)
    package = module.split(".")
    if file is None or file.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


@lru_cache(maxsize=256)
def _parse(module: str) -> ast.Module | None:
    file = _module_file(module)
    try:
        return ast.parse(file.read_text(encoding="utf-8")) if file else None
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None  # not for us to judge: the import will


def _module_file(module: str) -> Path | None:
    top, *rest = module.split(".")
    start = _package_file(top)
    if start is None:
        return None
    path = start.parent if start.name == "__init__.py" else start
    for part in rest:
        path = path / part
    for file in (path, path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


@lru_cache(maxsize=64)
def _package_file(top: str) -> Path | None:
    """The file of a top-level module or package; finds it without running anything."""
    spec = PathFinder.find_spec(top, sys.path)
    if spec is None:
        return None
    if spec.origin and spec.origin.endswith(".py"):
        return Path(spec.origin)
    folders = list(spec.submodule_search_locations or [])
    return Path(folders[0]) / "__init__.py" if folders else None


def read_constant(module: str, name: str) -> Any:
    """The value of a module's top-level constant that is written out plainly.

    Raises:
        LookupError: the module has no such constant.
    """
    tree = _parse(module)
    for node in tree.body if tree else []:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == name for target in node.targets):
            return ast.literal_eval(node.value)
    raise LookupError(f"{module} has no constant {name}")
