"""Cells that a spreadsheet would run."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.utils.csv_cells import plain_cell, safe_cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1"])
def test_formulas_are_guarded(text: str) -> None:
    assert safe_cell(text) == "'" + text


@pytest.mark.parametrize("text", ["A dog runs .", "", "'tis a dog", "a=b"])
def test_other_text_stays(text: str) -> None:
    assert safe_cell(text) == text


@settings(deadline=20_000)
@given(st.text(st.sampled_from("'=+-@\t\rab"), max_size=6))
def test_every_text_comes_back(text: str) -> None:
    assert plain_cell(safe_cell(text)) == text
