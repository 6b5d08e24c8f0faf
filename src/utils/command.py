"""Small commands with `key=value` arguments (`python -m src.export checkpoint=... out=...`)."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from src.utils.errors import UserError


def parse_command(arguments: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`key=value` words over `defaults`; a default of None must be given.

    Raises:
        UserError: an unknown key, a word without `=`, or a key that was not given.
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
        default = defaults[key]
        values[key] = type(default)(value) if isinstance(default, int | float) else value
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not given; expected {', '.join(f'{k}=...' for k in defaults)}")
    return values


def run_command(main: Callable[[list[str]], object], arguments: list[str]) -> None:
    """Call `main`; a person's mistake is one line and status 1."""
    try:
        main(arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
