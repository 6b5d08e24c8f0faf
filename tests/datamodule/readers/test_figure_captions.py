"""Labels in front of captions, and the choice of rows and captions."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.readers.figure_captions import FigureFilter, strip_label, strip_panel
from src.utils.errors import UserError


@pytest.mark.parametrize(
    "label",
    [
        "Figure 1.", "Fig 3.", "FIGURE 2:", "Fig. 1.", "Fig.1.", "fig. 12:",
        "Figure 1", "Figure 2 |", "Figure 3 -", "Figure S1.", "Figure 1A.", "Fig. 1a–c.",
        "Figure 4-1.", "Figure 1.2.", "Figure IV.", "Supplementary Figure 2.", "Suppl. Fig. S3:",
    ],
)  # fmt: skip
def test_labels_are_stripped(label: str) -> None:
    assert strip_label(f"{label} Axial CT scan.") == "Axial CT scan."
    assert strip_label(f"{label} (A) Axial CT scan.") == "(A) Axial CT scan."


@pytest.mark.parametrize(
    "caption",
    [
        "Axial CT scan. Figure 1. shows more.",
        "Figure 1 shows a cyst.",
        "Figures 1 and 2 in one.",
        "Figured bass.",
        "Figure of merit.",
        "Fig tree, 3 years old.",
        "",
    ],
)
def test_other_text_stays(caption: str) -> None:
    assert strip_label(caption) == caption


def test_a_label_alone_leaves_nothing() -> None:
    assert strip_label("Figure 1.") == strip_label("Fig 3") == ""


@pytest.mark.parametrize("mark", ["(A) ", "(a) ", "A) ", "A. ", "a: ", "(A). "])
def test_panel_letters_are_stripped(mark: str) -> None:
    assert strip_panel(f"{mark}Axial CT.", "A") == "Axial CT."


@pytest.mark.parametrize("caption", ["A scan.", "(B) Axial CT.", "Axial CT (A)."])
def test_other_letters_stay(caption: str) -> None:
    assert strip_panel(caption, "A") == caption


ROW: dict[str, Any] = {
    "radiology": True, "scope": False, "s2_caption": "Figure 1. One  two", "s2orc_caption": "Three",
}  # fmt: skip


def test_caption_fields_in_order_of_preference() -> None:
    assert FigureFilter().caption(ROW) == "One two"
    assert FigureFilter(strip_labels=False).caption(ROW) == "Figure 1. One two"
    assert FigureFilter(caption_fields=["s2orc_caption", "s2_caption"]).caption(ROW) == "Three"
    for empty in ("", " \x00", None, 7, ["x"]):
        assert FigureFilter().caption({**ROW, "s2_caption": empty}) == "Three"
    assert FigureFilter().caption({}) == ""


def test_rows_are_left_out_as_set() -> None:
    assert FigureFilter().unwanted({}) == ""
    assert FigureFilter(radiology_only=True).unwanted(ROW) == ""
    assert FigureFilter(scope_only=True).unwanted(ROW) == "not scope"
    assert FigureFilter(radiology_only=True).unwanted({"radiology": "true"}) == "not radiology"
    assert FigureFilter(min_words=3).too_short("One two") == "under 3 words"
    assert FigureFilter(min_words=2).too_short("One two") == ""


@pytest.mark.parametrize("fields", [[], "s2_caption", [1], None])
def test_caption_fields_that_are_no_names(fields: Any) -> None:
    with pytest.raises(UserError, match=r"caption_fields=.*set datamodule\.caption_fields="):
        FigureFilter(caption_fields=fields)


@pytest.mark.parametrize("words", [0, -1, 1.5, None])
def test_min_words_out_of_range(words: Any) -> None:
    with pytest.raises(UserError, match=r"min_words=.*whole number from 1"):
        FigureFilter(min_words=words)


@settings(deadline=20_000)
@given(st.text())
def test_what_is_stripped_was_in_front(text: str) -> None:
    assert text.endswith(strip_label(text))
    assert text.endswith(strip_panel(text, "A"))
