"""Each group's split by its own hash; ratios, folds, official splits, very small sets."""

from dataclasses import replace

import pytest

from src.datamodule.caption_table import CaptionedImage, CaptionTable
from src.datamodule.splits import split_table
from src.utils.errors import UserError
from tests.datamodule.test_caption_table import make_table


def sizes(table: CaptionTable, **settings) -> tuple[int, ...]:
    return tuple(len(images) for images in split_table(table, **settings).values())


def split_of(table: CaptionTable, **settings) -> dict[str, str]:
    splits = split_table(table, **settings)
    return {image.image_id: name for name, images in splits.items() for image in images}


def with_splits(*splits: str | None) -> CaptionTable:
    table = make_table(len(splits))
    pairs = zip(table.images, splits, strict=True)
    return replace(table, images=[replace(image, split=split) for image, split in pairs])


def test_splits_are_disjoint_by_group_complete_and_near_the_ratios() -> None:
    table = make_table(1000, num_groups=500)
    splits = split_table(table)
    assert sizes(table) == (784, 98, 118)
    groups = [{image.group for image in images} for images in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 500
    assert splits["train"] == [image for image in table.images if image in splits["train"]]


def test_a_published_split_stays_the_same_over_releases() -> None:
    splits = split_table(make_table(20))
    assert [image.image_id for image in splits["test"]] == ["6.jpg", "10.jpg", "12.jpg", "13.jpg"]
    assert [image.image_id for image in splits["val"]] == ["1.jpg", "2.jpg", "18.jpg"]


@pytest.mark.parametrize("settings", [{}, {"ratios": (0.5, 0.3, 0.2)}, {"fold": 2}, {"fold": 0, "num_folds": 3}])
def test_one_image_more_or_less_moves_no_other(settings: dict) -> None:
    table = make_table(300)
    before = split_of(table, **settings)
    more = replace(table, images=[CaptionedImage("new.jpg", "/new.jpg", ("A dog",), "new"), *table.images])
    less = replace(table, images=table.images[:137] + table.images[138:])
    for changed in (more, less):
        after = split_of(changed, **settings)
        assert all(after[name] == before[name] for name in after if name != "new.jpg")


@pytest.mark.parametrize("num_images", [3, 4, 7, 12])
def test_every_split_of_a_very_small_set_gets_a_group(num_images: int) -> None:
    for seed in range(5):
        found = sizes(make_table(num_images), seed=seed)
        assert min(found) >= 1
        assert sum(found) == num_images


def test_a_ratio_of_zero_gives_an_empty_split() -> None:
    assert sizes(make_table(1), ratios=(1, 0, 0)) == (1, 0, 0)
    assert sizes(make_table(10), ratios=(0, 0, 1)) == (0, 0, 10)
    assert sizes(make_table(2), ratios=(0.5, 0.5, 0)) == (1, 1, 0)
    assert sizes(make_table(50), ratios=(0, 0.5, 0.5))[0] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"ratios": ratios}, "three fractions") for ratios in ((0.8, 0.1), (0.8, 0.1, 0.2), (1.1, -0.1, 0.0), "abc")]
    + [({"fold": fold, "num_folds": num_folds}, f"fold={fold}, num_folds={num_folds}; expected 3 to 10")
       for fold, num_folds in ((0, 2), (0, 11), (-1, 5), (5, 5))],
)  # fmt: skip
def test_invalid_settings(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_table(make_table(10), **settings)
    with pytest.raises(UserError, match=r"split is empty.*split_ratios"):
        split_table(make_table(2))


def test_folds_test_every_image_once() -> None:
    table = make_table(200, num_groups=90)
    folds = [split_of(table, fold=fold, num_folds=4) for fold in range(4)]
    for name in folds[0]:
        found = [fold[name] for fold in folds]
        assert sorted(found) == ["test", "train", "train", "val"]
        assert found[found.index("test") - 1] == "val"


def test_official_split_wins_over_ratios_and_folds_over_both() -> None:
    table = with_splits("train", "val", "test", "test", "train", None)
    official = {"0.jpg": "train", "4.jpg": "train", "1.jpg": "val", "2.jpg": "test", "3.jpg": "test"}
    assert split_of(table) == official
    assert sum(sizes(table, fold=0, num_folds=3)) == 6
    assert sizes(table, ratios=(0, 0, 1)) == (0, 0, 6)  # a whole folder as test split


def test_a_split_that_the_official_one_lacks_is_taken_from_its_train_images() -> None:
    table = with_splits(*["train"] * 100, *["test"] * 20)
    found = split_of(table)
    assert all(found[f"{number}.jpg"] == "test" for number in range(100, 120))
    assert list(found.values()).count("test") == 20
    assert 4 <= list(found.values()).count("val") <= 18
    assert sizes(with_splits("train", "train", "val"), ratios=(0.9, 0.1, 0)) == (2, 1, 0)
    with pytest.raises(UserError, match="the test split is empty"):
        split_table(with_splits("train", "val"))
