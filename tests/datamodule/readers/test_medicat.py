"""The release's jsonl, its captions and its subfigures, clean and dirty, become a table or one clear error."""

import json
from pathlib import Path
from typing import Any

import pytest

from src.datamodule.caption_table import CaptionTable
from src.datamodule.readers.medicat import RELEASE, read_medicat, read_subfigures, strip_label
from src.datamodule.splits import split_table
from src.utils.errors import UserError
from tests.datamodule.tiny import captions, skipped

NAMES = ("a_1-Figure1-1.png", "a_2-Figure2-1.png", "b_1-Figure1-1.png", "c_1-Figure1-1.png")


def row(name: str, caption: Any = "Figure 1. Axial CT of the chest.", **changes: Any) -> dict[str, Any]:
    pdf_hash, fig_uri = name.split("_", 1)
    oa_info = {"doi": "10.1/x", "oa": {"is_oa": True, "license": "cc-by"}}
    fields = {"pdf_hash": pdf_hash, "fig_uri": fig_uri, "s2_caption": caption, "s2orc_caption": None}
    fields |= {"radiology": True, "scope": False, "oa_info": oa_info}
    return fields | changes


def folder(tmp_path: Path, *rows: Any, file: str = "release.jsonl") -> Path:
    """A MedICaT folder with empty figures: the reader does not open them."""
    (tmp_path / "figures").mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (tmp_path / "figures" / name).touch()
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (tmp_path / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


# Figures


def test_a_figure_has_its_path_paper_and_license(tmp_path: Path) -> None:
    root = folder(tmp_path, row(NAMES[1]), "", row(NAMES[2], "Fig 3. Two", oa_info=None))
    table = read_medicat(root)
    first, second = table.images
    assert (first.image_id, first.path) == (NAMES[1], str(root / "figures" / NAMES[1]))
    assert (first.captions, first.group, first.license) == (("Axial CT of the chest.",), "a", "cc-by")
    assert (second.captions, second.group, second.license, second.box) == (("Two",), "b", "", None)
    assert (table.rows_read, table.skipped) == (2, [])


def test_settings_exclude_rows(tmp_path: Path) -> None:
    rows = [row(NAMES[0], scope=True), row(NAMES[1], "Short"), row(NAMES[2], radiology="true"), row(NAMES[3])]
    table = read_medicat(folder(tmp_path, *rows), radiology_only=True, min_words=2)
    assert list(captions(table)) == [NAMES[0], NAMES[3]]
    assert table.excluded == {"not radiology": 1, "under 2 words": 1}
    assert table.skipped == []
    assert read_medicat(tmp_path, scope_only=True).excluded == {"not scope": 3}


@pytest.mark.parametrize(
    ("fields", "settings", "caption"),
    [
        ({}, {}, "One two"),
        ({}, {"strip_labels": False}, "Figure 1. One two"),
        ({}, {"caption_fields": ["s2orc_caption", "s2_caption"]}, "Three"),
        ({}, {"caption_fields": "s2orc_caption"}, "Three"),
        *(({"s2_caption": empty}, {}, "Three") for empty in ("", " \x00", None, 7, ["x"])),
    ],
)
def test_the_first_caption_field_with_text_counts(tmp_path: Path, fields: dict, settings: dict, caption: str) -> None:
    both = row(NAMES[0], "Figure 1. One  two", s2orc_caption="Three") | fields
    assert read_medicat(folder(tmp_path, both), **settings).images[0].captions == (caption,)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        *((line, "malformed line") for line in ("{not json", "[1, 2]", "[" * 100_000, '{"fig_uri": "x.png"}')),
        ('{"pdf_hash": 1, "fig_uri": "x"}', "malformed line"),
        (row("gone_1.png"), "no image"),
        ({**row(NAMES[3]), "pdf_hash": "../x"}, "outside the image folder"),
        ({**row(NAMES[3]), "pdf_hash": "/etc"}, "outside the image folder"),
        ({**row(NAMES[3]), "fig_uri": "\ud800.png"}, "unprintable file name"),
        *((row(NAMES[3], caption), "empty caption") for caption in (None, " \u0000 ", "Figure 1.")),
        (row(NAMES[0], "Again"), "duplicate figure"),
    ],
)
def test_dirty_rows_touch_no_other_row(tmp_path: Path, line: Any, reason: str) -> None:
    table = read_medicat(folder(tmp_path, row(NAMES[0], "First"), line, row(NAMES[2], "Last")))
    assert captions(table) == {NAMES[0]: ("First",), NAMES[2]: ("Last",)}
    assert [(skip.line, skip.reason) for skip in table.skipped] == [(2, reason)]
    assert table.rows_read == 3
    with pytest.raises(UserError, match=rf"33\.3% of the rows.*{reason} 1"):
        table.check(0.01)


def test_references_are_further_captions(tmp_path: Path) -> None:
    root = folder(tmp_path, row(NAMES[0], s2orc_references=["See the  lesion", "", None]), row(NAMES[1]))
    assert read_medicat(root).images[0].captions == ("Axial CT of the chest.",)
    found = captions(read_medicat(root, references=True))
    assert found == {NAMES[0]: ("Axial CT of the chest.", "See the lesion"), NAMES[1]: ("Axial CT of the chest.",)}


@pytest.mark.parametrize("by_split", [True, False])
def test_the_official_split_of_subcaptions(tmp_path: Path, by_split: bool) -> None:
    root = folder(tmp_path, *map(row, NAMES))
    (root / "subcaptions_public.jsonl").write_text(json.dumps({"pdf_hash": "z", "fig_uri": "1", "answer": "ignore"}))
    splits = {"train": [NAMES[0]], "dev": [NAMES[2]], "test": [NAMES[3]]}
    of_keys = {name: split for split, names in splits.items() for name in names}
    (root / "subcaption_split_keys.json").write_text(json.dumps(splits if by_split else of_keys))
    table = read_medicat(root, subcaptions_file="subcaptions_public.jsonl")
    assert [(image.image_id, image.split) for image in table.images] == [
        (NAMES[0], "train"), (NAMES[2], "val"), (NAMES[3], "test"),
    ]  # fmt: skip
    assert table.excluded["not in the official split"] == 1


def test_the_jsonl_is_found_or_has_to_be_set(tmp_path: Path) -> None:
    root = folder(tmp_path, row(NAMES[0]))
    (root / "subcaptions_public.jsonl").write_text("{}")
    assert len(read_medicat(root).images) == 1
    (root / "other.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"2 jsonl files \(.*other\.jsonl.*release\.jsonl.*captions_file"):
        read_medicat(root)
    assert len(read_medicat(root, "release.jsonl", root / "figures").images) == 1
    (root / RELEASE).write_text(json.dumps(row(NAMES[2])))
    assert list(captions(read_medicat(root))) == [NAMES[2]]


# Labels in front of captions


@pytest.mark.parametrize(
    "label",
    ["Figure 1.", "Fig 3.", "FIGURE 2:", "Fig.1.", "fig. 12:", "Figure 1", "Figure 2 |", "Figure 3 -", "Figure S1.",
     "Figure 1A.", "Fig. 1a–c.", "Figure 4-1.", "Figure 1.2.", "Figure IV.", "Supplementary Figure 2.",
     "Suppl. Fig. S3:"],
)  # fmt: skip
def test_labels_are_stripped(label: str) -> None:
    assert strip_label(f"{label} Axial CT scan.") == "Axial CT scan."
    assert strip_label(f"{label} (A) Axial CT scan.") == "(A) Axial CT scan."


@pytest.mark.parametrize(
    "caption",
    ["Axial CT scan. Figure 1. shows more.", "Figure 1 shows a cyst.", "Figures 1 and 2 in one.", "Figured bass.",
     "Figure of merit.", "Fig tree, 3 years old.", "A scan.", "(B) Axial CT.", "Axial CT (A).", ""],
)  # fmt: skip
def test_other_text_stays(caption: str) -> None:
    assert strip_label(caption, "A") == caption


@pytest.mark.parametrize("mark", ["(A) ", "(a) ", "A) ", "A. ", "a: ", "(A). ", "Fig. 2: (A) "])
def test_letters_of_subfigures_are_stripped(mark: str) -> None:
    assert strip_label(f"{mark}Axial CT.", "A") == "Axial CT."


# Subfigures

TEXT = "Chest: (A) X-ray, (B) axial CT."


def square(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def subfigures_row(name: str = NAMES[0], **changes: Any) -> dict[str, Any]:
    """A row as the release has it: TEXT in tokens, two boxes, and the tokens of each."""
    tokens: list[dict[str, Any]] = []
    for word in ["Chest", ":", "(", "A", ")", "X", "-", "ray", ",", "(", "B", ")", "axial", "CT", "."]:
        start = TEXT.index(word, tokens[-1]["end"] if tokens else 0)
        tokens.append({"text": word, "start": start, "end": start + len(word)})
    crops = [square(0, 0, 49.5, 50), square(50.5, -2, 120, 50)]
    fields = {
        "answer": "accept",
        "tokens": tokens,
        "width": 100,
        "height": 50,
        "subfigures": [{"label": label, "points": points} for label, points in zip("AB", crops, strict=True)],
        "subcaptions": {"A": [0, 2, 3, 4, 5, 6, 7], "B": [0, 9, 10, 11, 12, 13]},
    }
    return row(name) | fields | changes


def subfigures(tmp_path: Path, *rows: Any) -> tuple[list[Any], CaptionTable]:
    table = read_medicat(folder(tmp_path, row(NAMES[2])))
    found = read_subfigures(folder(tmp_path, *rows, file="subcaptions.jsonl") / "subcaptions.jsonl", table)
    return found.get(NAMES[0], []), table


def test_figures_with_subfigures_become_their_subfigures(tmp_path: Path) -> None:
    root = folder(tmp_path, *(row(name, "Whole figure") for name in NAMES[:3]))
    ready = subfigures_row(NAMES[1], subcaptions={"A": "(A) Chest X-ray", "B": "B) Axial CT"})
    folder(root, ready, subfigures_row(NAMES[2], answer="reject"), file="subcaptions.jsonl")
    table = read_medicat(root, subcaptions_file="subcaptions.jsonl")
    assert captions(table) == {
        NAMES[0]: ("Whole figure",),
        f"{NAMES[1]}#1": ("Chest X-ray",),
        f"{NAMES[1]}#2": ("Axial CT",),
        NAMES[2]: ("Whole figure",),
    }
    crop = table.images[2]
    assert (crop.box, crop.group, crop.license) == ((50, 0, 100, 50), "a", "cc-by")
    assert crop.path == str(root / "figures" / NAMES[1])
    assert table.excluded == {"subfigures not accepted": 1}
    only = read_medicat(root, subcaptions_file="subcaptions.jsonl", subfigures_only=True)
    assert list(captions(only)) == [f"{NAMES[1]}#1", f"{NAMES[1]}#2"]
    assert only.excluded == {"subfigures not accepted": 1, "no subfigures": 2}
    with pytest.raises(UserError, match="excluded by settings: no subfigures 3"):
        read_medicat(root, subfigures_only=True).check()


def test_subfigures_obey_the_settings_and_the_index(tmp_path: Path) -> None:
    root = folder(tmp_path, row(NAMES[0], radiology=False), row(NAMES[1]), row(NAMES[1]), row(NAMES[2]))
    ready = subfigures_row(NAMES[1], subcaptions={"A": "(A) X-ray", "B": "B) Axial CT"})
    folder(root, subfigures_row(NAMES[0]), ready, "{", file="subcaptions.jsonl")
    table = read_medicat(root, subcaptions_file="subcaptions.jsonl", radiology_only=True, min_words=2)
    assert list(captions(table)) == [f"{NAMES[1]}#2", NAMES[2]]
    assert table.excluded == {"not radiology": 1, "under 2 words": 1}
    assert skipped(table) == [(3, "", "malformed line"), (3, NAMES[1], "duplicate figure")]
    assert table.rows_read == 4 + 3


def test_a_subfigure_has_its_box_within_the_image_and_its_tokens(tmp_path: Path) -> None:
    assert subfigures(tmp_path, subfigures_row())[0] == [
        ((0, 0, 50, 50), "Chest (A) X-ray", "A"),
        ((50, 0, 100, 50), "Chest (B) axial CT", "B"),
    ]


def test_spans_and_plain_tokens_are_read_too(tmp_path: Path) -> None:
    plain = {"subfigures": None, "tokens": ["a", "b", "c"], "subcaptions": {"A": [2, 0, 7, "x"]}}
    plain["spans"] = [{"label": "A", "points": square(1, 2, 3, 4)}]
    assert subfigures(tmp_path, subfigures_row(**plain))[0] == [((1, 2, 3, 4), "a c", "A")]


def test_subfigures_without_a_subcaption_are_excluded(tmp_path: Path) -> None:
    found, table = subfigures(
        tmp_path, subfigures_row(subcaptions={"A": [0], "B": []}), subfigures_row(subcaptions=None)
    )
    assert len(found) == 1
    assert table.excluded == {"subfigures without a subcaption": 3}


@pytest.mark.parametrize(
    "points",
    [None, [], 5, "ab", [[1]], [[1, "x"]], [[1, None]], square(5, 5, 5, 9), square(200, 0, 300, 9),
     square(0, 0, float("nan"), 5), square(0, 0, float("inf"), 5), [[10**400, 1]]],
)  # fmt: skip
def test_boxes_that_are_none(tmp_path: Path, points: Any) -> None:
    found, table = subfigures(tmp_path, subfigures_row(subfigures=[{"label": "A", "points": points}]))
    assert found == []
    assert skipped(table) == [(1, NAMES[0], "malformed box")]


def test_real_sample(shared_data: Path) -> None:
    table = read_medicat(shared_data / "medicat")
    assert (len(table.images), len({image.group for image in table.images}), table.skipped) == (7, 3, [])
    assert not any(image.captions[0].lower().startswith("fig") for image in table.images)
    assert {image.license for image in table.images} == {"", "cc-by-nc-nd"}
    splits = split_table(table)
    assert [len(splits[split]) for split in ("train", "val", "test")] == [4, 2, 1]
