"""Cells of a csv file that a spreadsheet shows as text and never runs as a formula."""

import re

FORMULA = re.compile(r"'*[=+\-@\t\r]")
GUARDED = re.compile(r"'+[=+\-@\t\r]")


def safe_cell(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula (`=`, `+`, `-`, `@`, tab).

    `plain_cell` takes it away again: plain_cell(safe_cell(text)) == text for every text.
    """
    return f"'{text}" if FORMULA.match(text) else text


def plain_cell(cell: str) -> str:
    """The text that `safe_cell` was given."""
    return cell[1:] if GUARDED.match(cell) else cell
