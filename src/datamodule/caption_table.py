"""Steps 1 and 2 of the data path: the table that every reader fills, its checks and its split.

A reader (Flickr, MedICaT) turns a captions file into a `CaptionTable`; what follows knows the table alone.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from src.utils.errors import UserError
from src.utils.files import atomic_write

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One picture, or one box of a picture, with its captions.

    image_id: unique in the table; the file name as the captions file has it (MedICaT:
        "{pdf_hash}_{fig_uri}", a subfigure adds "#<n>").
    path: absolute path of the picture.
    captions: at least one, whitespace collapsed, no two the same.
    group: images of one group stay in one part of the split (Flickr: the image, MedICaT: the paper).
    box: (left, top, right, bottom) in pixels, where the sample is a part of the picture.
    split: "train", "val" or "test" where the captions file brings an official split.
    """

    image_id: str
    path: str
    captions: tuple[str, ...]
    group: str
    box: tuple[int, int, int, int] | None = None
    license: str = ""
    split: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of the captions file that could not be used. Lines count from 1, the header included."""

    line: int
    image_id: str
    reason: str
    detail: str


@dataclass
class CaptionTable:
    """What a reader gives: the images in file order, and every row that it could not use.

    rows_read: rows of the captions file, without header and blank lines; the base of the skipped share.
    left_out: rows put aside because a setting asked for it (`radiology_only`, an official split without the
        image), by reason. They are no fault of the file and do not count as skipped.
    """

    images: list[CaptionedImage]
    skipped: list[SkippedRow]
    rows_read: int
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def num_pairs(self) -> int:
        """Image-caption pairs in the table."""
        return sum(len(image.captions) for image in self.images)

    @property
    def skipped_share(self) -> float:
        """Skipped rows over rows read, 0 to 1."""
        return len(self.skipped) / self.rows_read if self.rows_read else 0.0

    def take(self, num_samples: int | None) -> "CaptionTable":
        """The first `num_samples` image-caption pairs in image order; all when None.

        The last image keeps as many of its captions as still fit: 12 pairs of a file with 5 captions an
        image are two whole images and 2 captions of the third.

        Raises:
            UserError: `num_samples` is below 1.
        """
        if num_samples is None:
            return self
        if num_samples < 1:
            raise UserError(
                f"datamodule.num_samples={num_samples}; expected at least 1 image-caption pair or null; "
                "set datamodule.num_samples=null to use all"
            )
        images, left = [], num_samples
        for image in self.images:
            if left <= 0:
                break
            images.append(
                image if len(image.captions) <= left else replace(image, captions=image.captions[:left])
            )
            left -= len(image.captions)
        return replace(self, images=images)

    def summary(self) -> str:
        """One line: rows, images, captions, and what was skipped or left out by reason."""
        text = f"{self.rows_read:,} rows: {len(self.images):,} images, {self.num_pairs:,} captions"
        reasons = Counter(row.reason for row in self.skipped)
        if reasons:
            text += f"; skipped {len(self.skipped):,} rows ({_by_count(reasons)})"
        if self.left_out:
            text += f"; left out as set: {_by_count(self.left_out)}"
        return text

    def check(self, max_skipped: float = 0.01) -> None:
        """Hold the table against the share of rows that may be skipped.

        Raises:
            UserError: `max_skipped` is no share, more than that share of the rows was skipped, or no image
                is left.
        """
        if not 0 <= max_skipped <= 1:
            raise UserError(
                f"datamodule.max_skipped={max_skipped}; expected a share of the rows from 0 to 1; "
                "set datamodule.max_skipped=0.01"
            )
        if not self.images:
            raise UserError(
                f"no image with a caption is left: {self.summary()}{self._example()}; "
                "expected at least one; look at the captions file and at datamodule.data_dir"
            )
        if self.skipped_share > max_skipped:
            raise UserError(
                f"{self.skipped_share:.1%} of the rows cannot be used: {self.summary()}{self._example()}; "
                f"expected at most datamodule.max_skipped={max_skipped}; mend the data or raise that share"
            )

    def _example(self) -> str:
        if not self.skipped:
            return ""
        row = self.skipped[0]
        return f"; the first: line {row.line}, {row.image_id!r}, {row.reason}"


def split_table(
    table: CaptionTable,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    fold: int | None = None,
    num_folds: int = 5,
) -> dict[str, list[CaptionedImage]]:
    """Part the images into "train", "val" and "test", each in table order, no group in two parts.

    `fold` (0 to num_folds - 1) asks for cross-validation by group: fold i is the test part, fold i + 1 the
    val part, the rest trains. Without it an official split of the captions file wins; images that it does not
    name are left out. Without either, `ratios` of the groups are taken in an order that depends on `seed` and
    on the groups' names alone: not on the order of the file, nor on the run's seed. Every part with a ratio
    above 0 gets at least one group where there are enough: of 3 papers with 4, 2 and 1 figures the first
    trains, the second is the val part and the third the test part.

    Raises:
        UserError: ratios, fold or num_folds make no sense, or a part stays empty that should not.
    """
    if fold is None and any(image.split for image in table.images):
        parts = {image.group: image.split for image in table.images}
        wanted = list(PARTS)
    else:
        order = _group_order(table.images, seed)
        shares = [1.0, 1.0, 1.0] if fold is not None else list(ratios)
        if fold is not None:
            parts = _fold(order, fold, num_folds)
        else:
            parts = _by_ratio(order, shares, Counter(image.group for image in table.images))
        wanted = [part for part, share in zip(PARTS, shares, strict=True) if share > 0]
    splits: dict[str, list[CaptionedImage]] = {part: [] for part in PARTS}
    for image in table.images:
        part = parts[image.group]
        if part is not None:
            splits[part].append(image)
    empty = [part for part in wanted if not splits[part]]
    if empty:
        groups = len({image.group for image in table.images})
        raise UserError(
            f"the {' and '.join(empty)} part of the split is empty: {len(table.images)} images in {groups} "
            f"groups; expected at least one group in each of {', '.join(wanted)}; "
            "give more data (datamodule.num_samples) or set a ratio of datamodule.split_ratios to 0"
        )
    return splits


def _group_order(images: Sequence[CaptionedImage], seed: int) -> list[str]:
    """The groups, shuffled by a hash of seed and name: the same on every machine and Python release."""

    def key(group: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{group}".encode("utf-8", "surrogatepass"), digest_size=16).digest()

    return sorted({image.group for image in images}, key=key)


def _by_ratio(
    order: Sequence[str], ratios: Sequence[float], sizes: Mapping[str, int]
) -> dict[str, str | None]:
    """Part of each group: val and test take their rounded shares (1 at least), train takes the rest.

    `sizes`, images of each group, matters where a share is less than one group: test and val then take the
    smallest groups.

    Raises:
        UserError: `ratios` are not three shares that add up to 1.
    """
    numbers = all(isinstance(ratio, (int, float)) for ratio in ratios)
    if not numbers or len(ratios) != 3 or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6:
        raise UserError(
            f"datamodule.split_ratios={list(ratios)}; expected three shares (train, val, test) that add up "
            "to 1; set datamodule.split_ratios=[0.8,0.1,0.1]"
        )
    if len(order) < sum(ratio > 0 for ratio in ratios):
        # Too few to serve every part: training comes first, and the caller names the empty parts.
        return dict.fromkeys(order, "train" if ratios[0] > 0 else "test")
    if any(0 < len(order) * ratio < 1 for ratio in ratios[1:]):
        # A handful of papers: without this the largest of them may be all test, and hardly anything trains.
        order = sorted(order, key=lambda group: sizes[group])
    counts = [max(round(len(order) * ratio), 1) if ratio > 0 else 0 for ratio in ratios]
    largest = max(range(3), key=lambda part: ratios[part])
    counts[largest] += len(order) - sum(counts)
    ends = [counts[2], counts[2] + counts[1]]
    return {
        group: "test" if place < ends[0] else "val" if place < ends[1] else "train"
        for place, group in enumerate(order)
    }


def _fold(order: Sequence[str], fold: int | None, num_folds: int) -> dict[str, str | None]:
    """Part of each group in cross-validation: fold i tests, fold i + 1 validates.

    Raises:
        UserError: fewer than 3 folds, more folds than groups, or a fold outside 0 to num_folds - 1.
    """
    if not 3 <= num_folds <= len(order):
        raise UserError(
            f"datamodule.num_folds={num_folds}; expected 3 to {len(order)} (the number of groups); "
            "set datamodule.num_folds=5 or give more data"
        )
    if fold is None or not 0 <= fold < num_folds:
        raise UserError(
            f"datamodule.fold={fold}; expected 0 to {num_folds - 1}, below datamodule.num_folds, or null; "
            "set datamodule.fold=0"
        )
    names: dict[int, str] = {fold: "test", (fold + 1) % num_folds: "val"}
    return {group: names.get(place % num_folds, "train") for place, group in enumerate(order)}


def write_splits(splits: Mapping[str, Sequence[CaptionedImage]], path: str | Path) -> None:
    """Write `image_id,split` for every image, part after part; cells are safe to open in a spreadsheet."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "split"])
        for part, images in splits.items():
            writer.writerows([image.image_id, part] for image in images)


def write_skipped(table: CaptionTable, path: str | Path) -> None:
    """Write `line,image_id,reason,detail` for every skipped row, in file order; the header alone if none."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["line", "image_id", "reason", "detail"])
        for row in table.skipped:
            writer.writerow([row.line, row.image_id, row.reason, row.detail])


def _by_count(reasons: dict[str, int]) -> str:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ordered)
