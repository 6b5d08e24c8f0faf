"""The table's checks, its split and the files it writes."""

import csv
import random
from pathlib import Path

import pytest

from src.datamodule.caption_table import (
    CaptionedImage,
    CaptionTable,
    SkippedRow,
    split_table,
    write_skipped,
    write_splits,
)
from src.utils.errors import UserError


def make_table(num_images: int, num_groups: int | None = None, captions: int = 5) -> CaptionTable:
    images = [
        CaptionedImage(
            f"{number}.jpg",
            f"/pictures/{number}.jpg",
            tuple(f"caption {place} of {number}" for place in range(captions)),
            group=f"group {number % (num_groups or num_images)}",
        )
        for number in range(num_images)
    ]
    return CaptionTable(images, [], rows_read=num_images * captions)


def sizes(splits: dict[str, list[CaptionedImage]]) -> tuple[int, int, int]:
    return len(splits["train"]), len(splits["val"]), len(splits["test"])


def ids(splits: dict[str, list[CaptionedImage]]) -> dict[str, set[str]]:
    return {part: {image.image_id for image in images} for part, images in splits.items()}


def test_take_counts_pairs_in_image_order() -> None:
    taken = make_table(10).take(12)
    assert [len(image.captions) for image in taken.images] == [5, 5, 2]
    assert [image.image_id for image in taken.images] == ["0.jpg", "1.jpg", "2.jpg"]
    assert taken.num_pairs == 12
    assert make_table(10).take(None).num_pairs == make_table(10).take(1000).num_pairs == 50


def test_take_refuses_less_than_one_pair() -> None:
    with pytest.raises(UserError, match=r"num_samples=0; expected at least 1"):
        make_table(3).take(0)


def test_summary_counts_by_reason() -> None:
    table = make_table(2)
    table.skipped = [SkippedRow(2, "a", "no image", ""), SkippedRow(3, "b", "no image", "")]
    table.skipped.append(SkippedRow(4, "c", "empty caption", ""))
    table.left_out = {"not radiology": 7}
    assert table.summary() == (
        "10 rows: 2 images, 10 captions; skipped 3 rows (no image 2, empty caption 1); "
        "left out as set: not radiology 7"
    )


def test_check_passes_up_to_the_share_and_stops_above() -> None:
    table = make_table(20)  # 100 rows
    table.skipped = [SkippedRow(7, "x.jpg", "no image", "")]
    table.check(0.01)
    table.skipped.append(SkippedRow(9, "y.jpg", "empty caption", ""))
    with pytest.raises(UserError, match=r"2\.0% of the rows.*line 7, 'x\.jpg', no image.*max_skipped=0\.01"):
        table.check(0.01)
    table.check(1.0)


def test_check_refuses_a_table_without_images() -> None:
    with pytest.raises(UserError, match="no image with a caption is left"):
        CaptionTable([], [], 0).check(1.0)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_check_refuses_what_is_no_share(share: float) -> None:
    with pytest.raises(UserError, match="expected a share"):
        make_table(3).check(share)


def test_split_is_disjoint_by_group_complete_and_near_the_ratios() -> None:
    table = make_table(1000, num_groups=200)
    splits = split_table(table)
    assert sizes(splits) == (800, 100, 100)
    groups = [image.group for images in splits.values() for image in {i.group: i for i in images}.values()]
    assert len(groups) == len(set(groups)) == 200
    assert set().union(*ids(splits).values()) == {image.image_id for image in table.images}


def test_split_is_pinned() -> None:
    """A published split must stay what it is over releases of this project and of Python."""
    splits = split_table(make_table(20))
    assert [image.image_id for image in splits["test"]] == ["6.jpg", "12.jpg"]
    assert [image.image_id for image in splits["val"]] == ["10.jpg", "13.jpg"]


def test_split_depends_on_seed_and_names_not_on_order_or_random_state() -> None:
    table = make_table(100)
    first = ids(split_table(table))
    random.seed(99)
    random.shuffle(table.images)
    assert ids(split_table(table)) == first
    assert ids(split_table(table, seed=1)) != first


def test_split_keeps_table_order_within_a_part() -> None:
    numbers = [int(image.image_id.split(".")[0]) for image in split_table(make_table(100))["train"]]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("num_images", "expected"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (7, (5, 1, 1)), (12, (10, 1, 1))]
)
def test_every_part_gets_a_group_of_a_tiny_set(num_images: int, expected: tuple[int, int, int]) -> None:
    assert sizes(split_table(make_table(num_images))) == expected


def test_the_largest_of_three_groups_trains() -> None:
    table = make_table(7)
    groups = ["a", "a", "a", "a", "b", "b", "c"]
    for names in (groups, groups[::-1], ["b", "a", "c", "a", "b", "a", "a"]):
        table.images = [
            CaptionedImage(image.image_id, image.path, image.captions, group)
            for image, group in zip(table.images, names, strict=True)
        ]
        assert sizes(split_table(table)) == (4, 2, 1)


@pytest.mark.parametrize("num_images", [1, 2])
def test_too_few_groups_for_three_parts(num_images: int) -> None:
    with pytest.raises(UserError, match=r"val and test part of the split is empty.*split_ratios"):
        split_table(make_table(num_images))


def test_a_ratio_of_zero_gives_an_empty_part() -> None:
    assert sizes(split_table(make_table(1), ratios=(1, 0, 0))) == (1, 0, 0)
    assert sizes(split_table(make_table(10), ratios=(0, 0, 1))) == (0, 0, 10)
    assert sizes(split_table(make_table(10), ratios=(0.9, 0.1, 0))) == (9, 1, 0)


@pytest.mark.parametrize("ratios", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.1, -0.1, 0.0), "abc"])
def test_ratios_that_make_no_sense(ratios: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="three shares"):
        split_table(make_table(10), ratios=ratios)


def test_folds_test_every_image_once() -> None:
    table = make_table(23, num_groups=11)
    folds = [ids(split_table(table, fold=fold, num_folds=4)) for fold in range(4)]
    assert sum(len(fold["test"]) for fold in folds) == 23
    assert set().union(*(fold["test"] for fold in folds)) == {image.image_id for image in table.images}
    for number, fold in enumerate(folds):
        assert fold["val"] == folds[(number + 1) % 4]["test"]
        assert not fold["train"] & (fold["test"] | fold["val"])


@pytest.mark.parametrize("num_folds", [2, 11])
def test_number_of_folds_out_of_range(num_folds: int) -> None:
    with pytest.raises(UserError, match=f"num_folds={num_folds}; expected 3 to 10"):
        split_table(make_table(10), fold=0, num_folds=num_folds)


@pytest.mark.parametrize("fold", [-1, 5])
def test_fold_out_of_range(fold: int) -> None:
    with pytest.raises(UserError, match=f"fold={fold}; expected 0 to 4"):
        split_table(make_table(10), fold=fold)


def test_official_split_wins_over_ratios_and_folds_over_both() -> None:
    table = make_table(6)
    parts = ["train", "val", "test", "test", "train", None]
    table.images = [
        CaptionedImage(image.image_id, image.path, image.captions, image.group, split=part)
        for image, part in zip(table.images, parts, strict=True)
    ]
    assert ids(split_table(table)) == {
        "train": {"0.jpg", "4.jpg"},
        "val": {"1.jpg"},
        "test": {"2.jpg", "3.jpg"},
    }
    assert sizes(split_table(table, fold=0, num_folds=3)) == (2, 2, 2)


def test_official_split_with_an_empty_part() -> None:
    table = make_table(2)
    table.images = [
        CaptionedImage(image.image_id, image.path, image.captions, image.group, split="train")
        for image in table.images
    ]
    with pytest.raises(UserError, match="val and test part of the split is empty"):
        split_table(table)


def test_files_of_the_run_folder(tmp_path: Path) -> None:
    table = make_table(10)
    table.skipped = [SkippedRow(4, "=cmd()", "no image", "+1"), SkippedRow(5, 'a,"b', "empty caption", "")]
    write_skipped(table, tmp_path / "skipped.csv")
    write_splits(split_table(table), tmp_path / "splits.csv")
    with open(tmp_path / "skipped.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["line", "image_id", "reason", "detail"],
            ["4", "=cmd()", "no image", "+1"],
            ["5", 'a,"b', "empty caption", ""],
        ]
    with open(tmp_path / "splits.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["image_id"] for row in rows} == {image.image_id for image in table.images}
    assert [row["split"] for row in rows] == ["train"] * 8 + ["val"] + ["test"]
