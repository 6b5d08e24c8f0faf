"""Panels of compound figures: accepted rows, boxes, and the words that belong to each panel."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodule.readers.subfigures import Subfigure, parse_row, read_subfigures
from src.utils.errors import UserError

TEXT = "Chest: (A) X-ray, (B) axial CT."


def tokens() -> list[dict[str, Any]]:
    """The words of TEXT as the release stores them: "Chest", ":", "(", "A", ")", "X", "-", "ray", ..."""
    words = ["Chest", ":", "(", "A", ")", "X", "-", "ray", ",", "(", "B", ")", "axial", "CT", "."]
    found, at = [], 0
    for number, word in enumerate(words):
        at = TEXT.index(word, at)
        found.append({"text": word, "start": at, "end": at + len(word), "id": number})
        at += len(word)
    return found


def square(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def row(**changes: Any) -> dict[str, Any]:
    return {
        "pdf_hash": "p",
        "fig_uri": "1-Figure1-1.png",
        "answer": "accept",
        "text": TEXT,
        "tokens": tokens(),
        "width": 100,
        "height": 50,
        "subfigures": [
            {"label": "A", "points": square(0, 0, 49.5, 50)},
            {"label": "B", "points": square(50.5, -2, 120, 50)},
        ],
        "subcaptions": {"A": [0, 2, 3, 4, 5, 6, 7], "B": [0, 9, 10, 11, 12, 13]},
    } | changes


def write(tmp_path: Path, *rows: Any) -> Path:
    file = tmp_path / "subcaptions_public.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in rows))
    return file


def test_a_panel_has_its_box_within_the_picture_and_its_words(tmp_path: Path) -> None:
    result = read_subfigures(write(tmp_path, row()))
    assert result.of_figure == {
        "p_1-Figure1-1.png": [
            Subfigure((0, 0, 50, 50), "Chest (A) X-ray", "A"),
            Subfigure((50, 0, 100, 50), "Chest (B) axial CT", "B"),
        ]
    }
    assert (result.rows_read, result.skipped, result.excluded) == (1, [], {})


def test_spans_plain_tokens_and_plain_subcaptions_are_read_too(tmp_path: Path) -> None:
    points = square(1, 2, 3, 4)
    plain = row(subfigures=None, spans=[{"label": "A", "points": points}], tokens=["a", "b", "c"])
    plain["subcaptions"] = {"A": [2, 0]}
    ready = row(subfigures=[{"label": "A", "points": points}], subcaptions={"A": " An  X-ray "})
    found = [
        read_subfigures(write(tmp_path, line)).of_figure["p_1-Figure1-1.png"][0] for line in (plain, ready)
    ]
    assert found == [Subfigure((1, 2, 3, 4), "a c", "A"), Subfigure((1, 2, 3, 4), "An X-ray", "A")]


@pytest.mark.parametrize("answer", ["reject", "ignore", None, True])
def test_only_accepted_rows_count(tmp_path: Path, answer: Any) -> None:
    result = read_subfigures(write(tmp_path, row(answer=answer), row()))
    assert result.excluded == {"subfigures not accepted": 1}
    assert len(result.of_figure) == 1


def test_panels_without_words_are_excluded(tmp_path: Path) -> None:
    result = read_subfigures(write(tmp_path, row(subcaptions={"A": [0], "B": []}), row(subcaptions=None)))
    assert [len(panels) for panels in result.of_figure.values()] == [1]
    assert result.excluded == {"subfigures without a subcaption": 3}


@pytest.mark.parametrize(
    "points",
    [None, [], 5, "ab", [[1]], [[1, "x"]], [[1, None]], square(5, 5, 5, 9), square(200, 0, 300, 9),
     square(0, 0, float("nan"), 5), square(0, 0, float("inf"), 5), [[10**400, 1]]],
)  # fmt: skip
def test_boxes_that_are_none(tmp_path: Path, points: Any) -> None:
    result = read_subfigures(write(tmp_path, row(subfigures=[{"label": "A", "points": points}])))
    assert result.of_figure == {}
    assert [(skipped.line, skipped.reason) for skipped in result.skipped] == [(1, "malformed box")]


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", '{"pdf_hash": 1, "fig_uri": "x"}', "[" * 100_000, '{"a": 1}']
)
def test_lines_that_are_no_row(tmp_path: Path, line: str) -> None:
    assert parse_row(line) is None
    result = read_subfigures(write(tmp_path, line, "", row()))
    assert [(skipped.line, skipped.reason) for skipped in result.skipped] == [(1, "malformed line")]
    assert (result.rows_read, len(result.of_figure)) == (2, 1)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_subfigures(tmp_path / "gone.jsonl")


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["label", "points", "text", "start", "end", "A"]), inner, max_size=4),
    ),
    max_leaves=15,
)


@settings(deadline=20_000)
@given(
    st.dictionaries(
        st.sampled_from(["subfigures", "subcaptions", "tokens", "text", "width", "height"]),
        ANYTHING,
        max_size=4,
    )
)
def test_any_row_gives_panels_or_faults(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    result = read_subfigures(write(tmp_path_factory.getbasetemp(), row(**changes)))
    for panel in (panel for panels in result.of_figure.values() for panel in panels):
        left, top, right, bottom = panel.box
        assert 0 <= left < right
        assert 0 <= top < bottom
        assert panel.caption
