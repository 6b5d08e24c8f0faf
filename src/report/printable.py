"""Text from data, safe to be shown."""

import re

# Control characters, which a terminal may obey, and lone surrogates, which no UTF-8 file can hold.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """The text with a replacement character for each one that cannot be shown; tabs and line ends stay."""
    return UNPRINTABLE.sub("\ufffd", text)
