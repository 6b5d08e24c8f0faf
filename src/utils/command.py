"""Parse `key=value` arguments of the small commands (`python -m src.export checkpoint=... out=...`)."""

import difflib
import glob
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from src.utils.errors import UserError
from src.utils.logging import visible


def parse_command(
    arguments: Sequence[str], defaults: Mapping[str, Any], positional: str = ""
) -> dict[str, Any]:
    """Parse `key=value` arguments over `defaults`, each to its default's type; None marks a required key.

    A leading `~` is the home folder, also in `out=~/a.csv`. positional: a key that collects the arguments that
    are no settings: files, folders and patterns, which may hold a `=`.

    Raises:
        UserError: an unknown key, an argument without `=`, a value of another type, or a missing key.
    """
    values = dict(defaults) | ({positional: []} if positional else {})
    expected = f"expected {', '.join(f'{key}=...' for key in defaults)}"
    for argument in arguments:
        key, equals, value = argument.partition("=")
        is_path = (
            not equals or os.path.lexists(argument) or (key not in defaults and glob.has_magic(argument))
        )
        if positional and is_path:
            values[positional].append(expand_home(argument))
        elif equals and key in defaults:
            values[key] = _typed(key, value, defaults[key])
        else:
            near = difflib.get_close_matches(key, list(defaults), n=1)
            hint = f"; did you mean {near[0]}=...?" if near else ""
            raise UserError(f"{argument!r} is no argument{hint}; {expected}")
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not given; {expected}")
    return values


def expand_home(path: str) -> str:
    """Expand a leading `~`, so that no folder of that name is ever created.

    Raises:
        UserError: it names an unknown user.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise UserError(f"{path!r}: no such user; expected a path; write ./{path} for a file of that name")
    return expanded


def _typed(key: str, value: str, default: Any) -> Any:
    """Convert to a bool, int or float where the default is one, else expand a leading `~`.

    Raises:
        UserError: the value is of another type.
    """
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise UserError(f"{key}={value!r}; expected true or false; set {key}={str(default).lower()}")
        return value.lower() == "true"
    if not isinstance(default, int | float):
        return expand_home(value)
    try:
        return type(default)(value)
    except ValueError as error:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UserError(f"{key}={value!r}; expected {kind}; set {key}={default}") from error


def run_command(main: Callable[[list[str]], object], arguments: list[str], usage: str = "") -> None:
    """Call `main`; an int that it returns is the exit status, a UserError is one line and status 1.

    usage: printed instead for `-h` and `--help`.
    """
    try:
        if usage and {"-h", "--help"} & set(arguments):
            print(usage.strip())
            return
        status = main(arguments)
        sys.stdout.flush()
    except UserError as error:
        sys.exit(visible(f"error: {error}", keep="\n\t"))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of the pipe (`head`) has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own last flush
        sys.exit(141)
    if isinstance(status, int) and status:
        sys.exit(status)
