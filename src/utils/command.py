"""Small commands with `key=value` arguments (`python -m src.export checkpoint=... out=...`)."""

import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from src.utils.errors import UserError
from src.utils.logging import visible


def parse_command(arguments: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`key=value` words over `defaults`, each of its default's type; a default of None must be given.

    Raises:
        UserError: an unknown key, a word without `=`, a value of another type, or a key that was not given.
    """
    values = dict(defaults)
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or key not in defaults:
            near = difflib.get_close_matches(key, list(defaults), n=1)
            hint = f"; did you mean {near[0]}=...?" if near else ""
            raise UserError(
                f"{word!r} is no argument{hint}; expected {', '.join(f'{k}=...' for k in defaults)}"
            )
        values[key] = _typed(key, value, defaults[key])
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not given; expected {', '.join(f'{k}=...' for k in defaults)}")
    return values


def _typed(key: str, value: str, default: Any) -> Any:
    """The value as a bool, int or float where the default is one.

    Raises:
        UserError: it is none.
    """
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise UserError(f"{key}={value!r}; expected true or false; set {key}={str(default).lower()}")
        return value.lower() == "true"
    if not isinstance(default, int | float):
        return value
    try:
        return type(default)(value)
    except ValueError as error:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UserError(f"{key}={value!r}; expected {kind}; set {key}={default}") from error


def run_command(main: Callable[[list[str]], object], arguments: list[str]) -> None:
    """Call `main`; a whole number that it returns is the status, a person's mistake is one line and status 1."""
    try:
        status = main(arguments)
        sys.stdout.flush()
    except UserError as error:
        sys.exit(visible(f"error: {error}", keep="\n\t"))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe, `head` say, has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own last flush
        sys.exit(141)
    if isinstance(status, int) and status:
        sys.exit(status)
