"""Whether a plain value fits an annotation, told from the annotation's text alone."""

import ast
from typing import Any

NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "Path": "a path",
    "None": "null",
}
LISTS = ("list", "List", "tuple", "Tuple", "Sequence", "Iterable", "Collection", "set", "frozenset")
MAPPINGS = ("dict", "Dict", "Mapping", "MutableMapping")


def misfit(value: Any, annotation: str) -> str | None:
    """What was expected where the value does not fit, else None; annotations that are not known fit all.

    >>> misfit("eight", "int | None")
    'a whole number or null'
    """
    if not annotation:
        return None
    try:
        choices = _choices(ast.parse(annotation, mode="eval").body)
    except SyntaxError:
        return None
    if any(choice is None or _fits(value, choice) for choice in choices):
        return None
    return " or ".join(dict.fromkeys(_words(choice) for choice in choices if choice is not None))


def _choices(node: ast.expr) -> list[ast.expr | None]:
    """The members of a union; None stands for an annotation that is not known."""
    if isinstance(node, ast.BinOp):
        return _choices(node.left) + _choices(node.right)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _choices(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.Constant) and node.value is None:
        return [node]
    if isinstance(node, ast.Subscript):
        name = _name(node.value)
        if name == "Optional":
            return [*_choices(node.slice), ast.Constant(None)]
        if name == "Union" and isinstance(node.slice, ast.Tuple):
            return [choice for part in node.slice.elts for choice in _choices(part)]
        return [node if name in (*LISTS, *MAPPINGS, "Literal") else None]
    return [node if _name(node) in (*NAMES, *LISTS, *MAPPINGS) else None]


def _fits(value: Any, node: ast.expr) -> bool:
    name = _name(node.value if isinstance(node, ast.Subscript) else node)
    if isinstance(node, ast.Constant):
        return value is None
    if name == "Literal" and isinstance(node, ast.Subscript):
        return value in _literals(node)
    if name in LISTS:
        return isinstance(value, list | tuple)
    if name in MAPPINGS:
        return isinstance(value, dict)
    if name == "bool":
        return isinstance(value, bool)
    if name in ("int", "float"):
        return not isinstance(value, bool) and isinstance(value, int if name == "int" else int | float)
    return isinstance(value, str)


def _words(node: ast.expr) -> str:
    name = _name(node.value if isinstance(node, ast.Subscript) else node)
    if isinstance(node, ast.Constant):
        return NAMES["None"]
    if name == "Literal" and isinstance(node, ast.Subscript):
        return " or ".join(str(choice) for choice in _literals(node))
    return NAMES.get(name, "a list [a,b]" if name in LISTS else "a mapping {key: value}")


def _literals(node: ast.Subscript) -> list[Any]:
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return [part.value for part in parts if isinstance(part, ast.Constant)]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return "None" if node.value is None else ""
    return ast.unparse(node).rpartition(".")[2]
