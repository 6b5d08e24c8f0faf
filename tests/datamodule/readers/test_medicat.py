"""The release's jsonl, clean and dirty, becomes a table or one clear error."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.datamodule.caption_table import CaptionTable
from src.datamodule.readers.figure_captions import FigureFilter
from src.datamodule.readers.medicat import read_medicat
from src.datamodule.splits import split_table
from src.utils.errors import UserError

NAMES = ("a_1-Figure1-1.png", "a_2-Figure2-1.png", "b_1-Figure1-1.png", "c_1-Figure1-1.png")


def row(name: str, caption: Any = "Figure 1. Axial CT of the chest.", **changes: Any) -> dict[str, Any]:
    pdf_hash, fig_uri = name.split("_", 1)
    fields: dict[str, Any] = {
        "pdf_hash": pdf_hash,
        "fig_uri": fig_uri,
        "fig_key": "Figure1",
        "s2_caption": caption,
        "s2orc_caption": None,
        "s2orc_references": None,
        "radiology": True,
        "scope": False,
        "predicted_type": "Medical images",
        "oa_info": {"doi": "10.1/x", "oa": {"is_oa": True, "license": "cc-by"}},
    }
    return fields | changes


def folder(tmp_path: Path, *rows: Any, file: str = "release.jsonl", figures: str = "figures") -> Path:
    """A MedICaT folder with empty figures: the reader does not open them."""
    (tmp_path / figures).mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (tmp_path / figures / name).touch()
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (tmp_path / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def captions(table: CaptionTable) -> dict[str, tuple[str, ...]]:
    return {image.image_id: image.captions for image in table.images}


def skipped(table: CaptionTable) -> list[tuple[int, str, str]]:
    return [(row.line, row.image_id, row.reason) for row in table.skipped]


def test_a_figure_has_its_path_paper_and_licence(tmp_path: Path) -> None:
    root = folder(tmp_path, row(NAMES[1]), "", row(NAMES[2], "Fig 3. Two", oa_info=None))
    table = read_medicat(root)
    first, second = table.images
    assert (first.image_id, first.path) == (NAMES[1], str(root / "figures" / NAMES[1]))
    assert (first.captions, first.group, first.license) == (("Axial CT of the chest.",), "a", "cc-by")
    assert (second.captions, second.group, second.license, second.box) == (("Two",), "b", "", None)
    assert (table.rows_read, table.skipped) == (2, [])


def test_figures_of_a_paper_stay_together(tmp_path: Path) -> None:
    table = read_medicat(folder(tmp_path, *(row(name) for name in NAMES)))
    parts = {image.image_id: part for part, images in split_table(table).items() for image in images}
    assert parts[NAMES[0]] == parts[NAMES[1]]
    assert set(parts.values()) == {"train", "val", "test"}


def test_settings_leave_rows_out(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        row(NAMES[0]),
        row(NAMES[1], "Short"),
        row(NAMES[2], radiology=False),
        row("x_gone.png", radiology=False),
    )
    table = read_medicat(root, choose=FigureFilter(radiology_only=True, min_words=2))
    assert list(captions(table)) == [NAMES[0]]
    assert table.excluded == {"not radiology": 2, "under 2 words": 1}
    assert table.skipped == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "malformed line"),
        ("[1, 2]", "malformed line"),
        ('{"fig_uri": "x.png"}', "malformed line"),
        (row("gone_1.png"), "no image"),
        ({**row(NAMES[3]), "pdf_hash": "../x"}, "outside the image folder"),
        ({**row(NAMES[3]), "pdf_hash": "/etc"}, "outside the image folder"),
        ({**row(NAMES[3]), "fig_uri": "\ud800.png"}, "unprintable file name"),
        (row(NAMES[3], None), "empty caption"),
        (row(NAMES[3], " \u0000 "), "empty caption"),
        (row(NAMES[3], "Figure 1."), "empty caption"),
        (row(NAMES[0], "Again"), "duplicate figure"),
    ],
)  # fmt: skip
def test_dirty_rows_touch_no_other_row(tmp_path: Path, line: Any, reason: str) -> None:
    table = read_medicat(folder(tmp_path, row(NAMES[0], "First"), line, row(NAMES[2], "Last")))
    assert captions(table) == {NAMES[0]: ("First",), NAMES[2]: ("Last",)}
    assert [(skip.line, skip.reason) for skip in table.skipped] == [(2, reason)]
    assert table.rows_read == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    root = folder(tmp_path)
    lines = [json.dumps(row(name, "Läsion, 5 µm"), ensure_ascii=False) for name in NAMES[:2]]
    (root / "release.jsonl").write_bytes("\r\n".join(lines).encode(encoding))
    assert captions(read_medicat(root)) == dict.fromkeys(NAMES[:2], ("Läsion, 5 µm",))


def test_missing_figures_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path, row(NAMES[0]), row("x_1.png"), row(NAMES[2]), row(NAMES[3]))
    with caplog.at_level(logging.WARNING):
        table = read_medicat(root)
    assert "figures missing: 25.0% (1 of 4)" in caplog.text
    with pytest.raises(UserError, match=r"25\.0% of the rows.*no image 1"):
        table.check(0.01)


def panels(name: str, **changes: Any) -> dict[str, Any]:
    pdf_hash, fig_uri = name.split("_", 1)
    fields = {
        "pdf_hash": pdf_hash,
        "fig_uri": fig_uri,
        "answer": "accept",
        "subfigures": [
            {"label": "A", "points": [[0, 0], [10, 20]]},
            {"label": "B", "points": [[10, 0], [30, 20]]},
        ],
        "subcaptions": {"A": "(A) Chest X-ray", "B": "B) Axial CT"},
    }
    return fields | changes


def test_figures_with_panels_become_their_panels(tmp_path: Path) -> None:
    root = folder(tmp_path, *(row(name, "Whole figure") for name in NAMES[:3]))
    folder(root, panels(NAMES[1]), panels(NAMES[2], answer="reject"), file="subcaptions_public.jsonl")
    table = read_medicat(root, subcaptions_file="subcaptions_public.jsonl")
    assert captions(table) == {
        NAMES[0]: ("Whole figure",),
        f"{NAMES[1]}#1": ("Chest X-ray",),
        f"{NAMES[1]}#2": ("Axial CT",),
        NAMES[2]: ("Whole figure",),
    }
    panel = table.images[2]
    assert (panel.box, panel.group, panel.license) == ((10, 0, 30, 20), "a", "cc-by")
    assert panel.path == str(root / "figures" / NAMES[1])
    assert table.excluded == {"subfigures not accepted": 1}
    only = read_medicat(root, subcaptions_file="subcaptions_public.jsonl", subfigures_only=True)
    assert list(captions(only)) == [f"{NAMES[1]}#1", f"{NAMES[1]}#2"]
    assert only.excluded == {"subfigures not accepted": 1, "no subfigures": 2}


def test_panels_obey_the_settings_and_the_index(tmp_path: Path) -> None:
    root = folder(tmp_path, row(NAMES[0], radiology=False), row(NAMES[1]), row(NAMES[1]), row(NAMES[2]))
    first = panels(NAMES[1], subcaptions={"A": "(A) X-ray", "B": "B) Axial CT"})
    folder(root, panels(NAMES[0]), first, "{", file="subs.jsonl")
    choose = FigureFilter(radiology_only=True, min_words=2)
    table = read_medicat(root, "release.jsonl", subcaptions_file="subs.jsonl", choose=choose)
    assert list(captions(table)) == [f"{NAMES[1]}#2", NAMES[2]]
    assert table.excluded == {"not radiology": 1, "under 2 words": 1}
    assert skipped(table) == [(3, NAMES[1], "duplicate figure"), (3, "", "malformed line")]
    assert table.rows_read == 4 + 3


def test_subfigures_only_needs_their_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="subfigures_only=true without a file"):
        read_medicat(folder(tmp_path, row(NAMES[0])), subfigures_only=True)


def test_the_index_is_found_or_asked_for(tmp_path: Path) -> None:
    root = folder(tmp_path, row(NAMES[0]))
    (root / "subcaptions_public.jsonl").write_text("{}")
    assert len(read_medicat(root).images) == 1
    (root / "other.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"2 jsonl files \(other\.jsonl, release\.jsonl\).*captions_file"):
        read_medicat(root)
    assert len(read_medicat(root, "release.jsonl", root / "figures").images) == 1
    release = "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
    (root / release).write_text(json.dumps(row(NAMES[2])))
    assert list(captions(read_medicat(root))) == [NAMES[2]]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data_dir='.*medicat' does not exist"):
        read_medicat(tmp_path / "medicat")
    with pytest.raises(UserError, match=r"has 0 jsonl files \(none\)"):
        read_medicat(tmp_path)
    (tmp_path / "x.jsonl").write_text(json.dumps(row(NAMES[0])))
    with pytest.raises(UserError, match="has no image folder"):
        read_medicat(tmp_path)
    with pytest.raises(UserError, match=r"images_dir=.* does not exist"):
        read_medicat(tmp_path, images_dir="pictures")
    with pytest.raises(UserError, match=r"captions_file='y\.jsonl' does not exist"):
        read_medicat(tmp_path, "y.jsonl")
    (tmp_path / "figures").mkdir()
    with pytest.raises(UserError, match=r"subcaptions_file='y\.jsonl' does not exist"):
        read_medicat(tmp_path, subcaptions_file="y.jsonl")


@pytest.mark.parametrize("text", ["", "\n\x00\n", "image,caption\na.jpg,A dog\n", "[]\n"])
def test_files_that_are_no_index(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="has no line with pdf_hash and fig_uri"):
        read_medicat(folder(tmp_path, text))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=6),
    st.sampled_from(["a", "1-Figure1-1.png", "..", "/"]),
    st.dictionaries(st.sampled_from(["oa", "license"]), st.text(max_size=3), max_size=2),
)  # fmt: skip
ROWS = st.dictionaries(
    st.sampled_from(["pdf_hash", "fig_uri", "s2_caption", "s2orc_caption", "radiology", "oa_info"]), VALUES
)


@settings(max_examples=150, deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.one_of(ROWS.map(json.dumps).map(str.encode), st.binary(max_size=40)), max_size=6),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"]),
)
def test_any_bytes_give_a_table_or_one_clear_line(tmp_path: Path, lines: list[bytes], mark: bytes) -> None:
    root = folder(tmp_path)
    (root / "any.jsonl").write_bytes(mark + b"\n".join(lines))
    table, message = None, ""
    try:
        table = read_medicat(root, "any.jsonl")
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    if table is not None:
        assert len(table.images) + len(table.skipped) == table.rows_read
        assert all(image.captions[0] for image in table.images)
        assert {image.image_id for image in table.images} <= set(NAMES)


def test_real_sample(shared_data: Path) -> None:
    table = read_medicat(shared_data / "medicat")
    assert (len(table.images), len({image.group for image in table.images}), table.skipped) == (7, 3, [])
    assert not any(image.captions[0].lower().startswith("fig") for image in table.images)
    assert {image.license for image in table.images} == {"", "cc-by-nc-nd"}
    splits = split_table(table)
    assert [len(splits[part]) for part in ("train", "val", "test")] == [4, 2, 1]
