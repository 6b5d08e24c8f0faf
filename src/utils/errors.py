"""Errors that a user can mend, printed in one line."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in a path, a setting or a file, in one line: what was found; what was expected; what to do.

    Entries print the message without a traceback and exit with status 1, or with `exit_status` where a kind
    of error has one. label: what the message begins with.
    """

    label = "error: "


class ConfigErrors(UserError):
    """Every mistake of a config at once, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        head = [] if len(self.problems) == 1 else [f"{len(self.problems)} settings are wrong"]
        super().__init__("\n  ".join(head + self.problems))
