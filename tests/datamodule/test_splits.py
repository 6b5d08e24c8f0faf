"""Each group's split by its own hash; ratios, folds, official splits, very small sets."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from src.datamodule.caption_table import CaptionedImage, CaptionTable
from src.datamodule.splits import split_table
from src.utils.errors import UserError
from tests.datamodule.test_caption_table import make_table


def sizes(splits: dict[str, list[CaptionedImage]]) -> tuple[int, int, int]:
    return len(splits["train"]), len(splits["val"]), len(splits["test"])


def ids(splits: dict[str, list[CaptionedImage]]) -> dict[str, set[str]]:
    return {name: {image.image_id for image in images} for name, images in splits.items()}


def split_of(table: CaptionTable, **settings) -> dict[str, str]:
    return {
        image.image_id: name for name, images in split_table(table, **settings).items() for image in images
    }


def with_splits(table: CaptionTable, splits: Sequence[str | None]) -> CaptionTable:
    pairs = zip(table.images, splits, strict=True)
    return replace(table, images=[replace(image, split=split) for image, split in pairs])


def test_splits_are_disjoint_by_group_complete_and_near_the_ratios() -> None:
    table = make_table(1000, num_groups=500)
    splits = split_table(table)
    assert sizes(splits) == (784, 98, 118)
    groups = [{image.group for image in images} for images in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 500
    assert set().union(*ids(splits).values()) == {image.image_id for image in table.images}
    numbers = [int(image.image_id.split(".")[0]) for image in splits["train"]]
    assert numbers == sorted(numbers)


def test_a_published_split_stays_the_same_over_releases() -> None:
    splits = split_table(make_table(20))
    assert [image.image_id for image in splits["test"]] == ["6.jpg", "10.jpg", "12.jpg", "13.jpg"]
    assert [image.image_id for image in splits["val"]] == ["1.jpg", "2.jpg", "18.jpg"]


@pytest.mark.parametrize(
    "settings", [{}, {"ratios": (0.5, 0.3, 0.2)}, {"fold": 2}, {"fold": 0, "num_folds": 3}]
)
def test_one_image_more_or_less_moves_no_other(settings: dict) -> None:
    table = make_table(300)
    before = split_of(table, **settings)
    more = replace(table, images=[CaptionedImage("new.jpg", "/new.jpg", ("A dog",), "new"), *table.images])
    less = replace(table, images=table.images[:137] + table.images[138:])
    for changed in (more, less):
        after = split_of(changed, **settings)
        assert all(after[name] == before[name] for name in after if name != "new.jpg")


def test_split_depends_on_seed_and_names_not_on_order_or_random_state() -> None:
    table = make_table(100)
    first = ids(split_table(table))
    random.seed(99)
    random.shuffle(table.images)
    assert ids(split_table(table)) == first
    assert ids(split_table(table, seed=1)) != first


@pytest.mark.parametrize("num_images", [3, 4, 7, 12])
@pytest.mark.parametrize("seed", range(5))
def test_every_split_of_a_very_small_set_gets_a_group(num_images: int, seed: int) -> None:
    found = sizes(split_table(make_table(num_images), seed=seed))
    assert min(found) >= 1
    assert sum(found) == num_images


def test_the_largest_of_three_groups_trains() -> None:
    images = [CaptionedImage(f"{n}.jpg", f"/{n}.jpg", ("x",), group) for n, group in enumerate("abaacab")]
    assert sizes(split_table(CaptionTable(images, [], 7))) == (4, 2, 1)


@pytest.mark.parametrize("num_images", [1, 2])
def test_too_few_groups_for_three_splits(num_images: int) -> None:
    with pytest.raises(UserError, match=r"split is empty.*split_ratios"):
        split_table(make_table(num_images))


def test_a_ratio_of_zero_gives_an_empty_split() -> None:
    assert sizes(split_table(make_table(1), ratios=(1, 0, 0))) == (1, 0, 0)
    assert sizes(split_table(make_table(10), ratios=(0, 0, 1))) == (0, 0, 10)
    assert sizes(split_table(make_table(2), ratios=(0.5, 0.5, 0))) == (1, 1, 0)
    assert sizes(split_table(make_table(50), ratios=(0, 0.5, 0.5)))[0] == 0


@pytest.mark.parametrize("ratios", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.1, -0.1, 0.0), "abc"])
def test_invalid_ratios(ratios: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="three fractions"):
        split_table(make_table(10), ratios=ratios)


def test_folds_test_every_image_once() -> None:
    table = make_table(200, num_groups=90)
    folds = [ids(split_table(table, fold=fold, num_folds=4)) for fold in range(4)]
    assert sum(len(fold["test"]) for fold in folds) == 200
    assert set().union(*(fold["test"] for fold in folds)) == {image.image_id for image in table.images}
    for number, fold in enumerate(folds):
        assert fold["val"] == folds[(number + 1) % 4]["test"]
        assert not fold["train"] & (fold["test"] | fold["val"])


@pytest.mark.parametrize(
    ("fold", "num_folds", "message"),
    [
        (0, 2, "num_folds=2; expected 3 to 10"),
        (0, 11, "num_folds=11; expected 3 to 10"),
        (-1, 5, "fold=-1, num_folds=5; expected"),
        (5, 5, "fold=5, num_folds=5; expected"),
    ],
)
def test_folds_out_of_range(fold: int, num_folds: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_table(make_table(10), fold=fold, num_folds=num_folds)


def test_official_split_wins_over_ratios_and_folds_over_both() -> None:
    table = with_splits(make_table(6), ["train", "val", "test", "test", "train", None])
    assert ids(split_table(table)) == {
        "train": {"0.jpg", "4.jpg"},
        "val": {"1.jpg"},
        "test": {"2.jpg", "3.jpg"},
    }
    assert sum(sizes(split_table(table, fold=0, num_folds=3))) == 6


def test_a_whole_folder_can_be_the_test_split_whatever_its_official_split() -> None:
    table = with_splits(make_table(4), ["train", "val", "test", None])
    assert sizes(split_table(table, ratios=(0, 0, 1))) == (0, 0, 4)


def test_official_split_without_a_test_split_needs_that_ratio_at_zero() -> None:
    table = with_splits(make_table(3), ["train", "train", "val"])
    with pytest.raises(UserError, match="the test split is empty"):
        split_table(table)
    assert sizes(split_table(table, ratios=(0.9, 0.1, 0))) == (2, 1, 0)
