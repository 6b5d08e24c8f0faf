"""Values against annotations as they are written."""

import pytest

from src.utils.value_types import misfit

FITS = [
    (1, "int"), (1, "float"), (1.5, "float"), (True, "bool"), ("a", "str"), (None, "int | None"),
    (None, "None"),
    (None, "Optional[int]"), (3, "Union[str, int]"), ([1], "Sequence[float]"), ((1,), "tuple[int, ...]"),
    ({"a": 1}, "Mapping[str, Any]"), ("step", "Literal['step', 'epoch']"), ("x", "Something | None"),
    (object(), ""), (3, "'int | None'"), ("p", "str | Path"), (5, "Callable[..., int] | None"),
    (4, "not ( valid"),
    (1, "typing.Optional[builtins.int]"),
]  # fmt: skip
MISFITS = [
    ("eight", "int", "a whole number"),
    (1.0, "int", "a whole number"),
    (True, "int", "a whole number"),
    (1, "bool", "true or false"),
    (3, "str", "text"),
    ("a", "float | None", "a number or null"),
    ("a", "Sequence[float]", "a list [a,b]"),
    ([1], "Mapping[str, int]", "a mapping {key: value}"),
    ("week", "Optional[Literal['step', 'epoch']]", "step or epoch or null"),
]


@pytest.mark.parametrize(("value", "annotation"), FITS)
def test_fits(value, annotation):
    assert misfit(value, annotation) is None


@pytest.mark.parametrize(("value", "annotation", "expected"), MISFITS)
def test_misfits_say_what_was_expected(value, annotation, expected):
    assert misfit(value, annotation) == expected
