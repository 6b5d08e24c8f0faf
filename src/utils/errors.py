"""The one kind of error that a person can mend."""


class UserError(Exception):
    """A mistake in a path, a setting or a file, told in one line: what was found; what was expected; what to do.

    Entries print the message without a traceback and exit with status 1.
    """
