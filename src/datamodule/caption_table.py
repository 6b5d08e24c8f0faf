"""The table of captioned images that every reader returns, and its checks."""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from src.utils.errors import UserError
from src.utils.files import atomic_write

UNREADABLE = "unreadable image"
NUM_EXAMPLES = 5  # skipped rows that an error message names


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image, or one box of an image, with its captions.

    image_id: unique in the table: the path within the image folder, with forward slashes (MedICaT:
        "{pdf_hash}_{fig_uri}", a subfigure adds "#<n>"; tar: "{shard}/{key}").
    path: absolute path of the image file, or of the tar that holds it.
    captions: at least one; whitespace collapsed, without duplicates.
    group: images of one group stay in one split (Flickr: the image, MedICaT: the paper).
    box: (left, top, right, bottom) in pixels, where the sample is a crop of the image.
    license: as the data states it, "" if it states none.
    split: "train", "val" or "test" where the data has an official split.
    span: (offset, size) in bytes of the image within the tar at `path`; None for an ordinary file.
    """

    image_id: str
    path: str
    captions: tuple[str, ...]
    group: str
    box: tuple[int, int, int, int] | None = None
    license: str = ""
    split: str | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of the captions file that could not be used. Lines count from 1, header included; 0 is no line."""

    line: int
    image_id: str
    reason: str
    detail: str


@dataclass
class CaptionTable:
    """The images in file order, and every row that could not be used.

    rows_read: rows of the captions file, without header and blank lines.
    excluded: rows that a setting excludes (`radiology_only`, images outside the official split), by reason.
        They are no error in the data and do not count as skipped.
    """

    images: list[CaptionedImage]
    skipped: list[SkippedRow]
    rows_read: int
    excluded: dict[str, int] = field(default_factory=dict)

    @property
    def num_pairs(self) -> int:
        """Image-caption pairs in the table."""
        return sum(len(image.captions) for image in self.images)

    @property
    def skipped_fraction(self) -> float:
        """Unusable rows over rows read, plus unreadable images' captions over the captions looked at."""
        unreadable = sum(row.reason == UNREADABLE for row in self.skipped)
        looked_at = self.num_pairs + unreadable
        rows = (len(self.skipped) - unreadable) / self.rows_read if self.rows_read else 0.0
        return rows + (unreadable / looked_at if looked_at else 0.0)

    def take(self, num_samples: int | None) -> "CaptionTable":
        """Return the first `num_samples` image-caption pairs in image order; all when None.

        The last image keeps as many captions as fit: 12 pairs of a file with 5 captions per image are two whole
        images and 2 captions of the third.

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

    def without_unreadable(self, reasons: Mapping[str, str]) -> "CaptionTable":
        """Remove the images named in `reasons` (image_id -> reason); each of their captions counts as skipped."""
        if not reasons:
            return self
        skipped = [
            SkippedRow(0, image.image_id, UNREADABLE, reasons[image.image_id])
            for image in self.images
            if image.image_id in reasons
            for _ in image.captions
        ]
        images = [image for image in self.images if image.image_id not in reasons]
        return replace(self, images=images, skipped=[*self.skipped, *skipped])

    def summary(self) -> str:
        """One line: rows, images, captions, and the skipped and excluded rows by reason."""
        text = f"{self.rows_read:,} rows: {len(self.images):,} images, {self.num_pairs:,} captions"
        if self.skipped:
            reasons = Counter(row.reason for row in self.skipped)
            text += f"; skipped {len(self.skipped):,} rows ({_by_count(reasons)})"
        if self.excluded:
            text += f"; excluded by settings: {_by_count(self.excluded)}"
        return text

    def check(self, max_skipped: float = 0.01) -> None:
        """Stop where too many rows are skipped; the message names the first of them with their reasons.

        Raises:
            UserError: `max_skipped` is no fraction, more than that fraction was skipped, or no image is left.
        """
        if not 0 <= max_skipped <= 1:
            raise UserError(
                f"datamodule.max_skipped={max_skipped}; expected a fraction of the rows from 0 to 1; "
                "set datamodule.max_skipped=0.01"
            )
        if not self.images:
            raise UserError(
                f"no image with a caption is left: {self.summary()}{self._examples()}; "
                "expected at least one; look at the captions file and at datamodule.data_dir"
            )
        if self.skipped_fraction > max_skipped:
            raise UserError(
                f"{self.skipped_fraction:.1%} of the rows cannot be used: {self.summary()}{self._examples()}; "
                f"expected at most datamodule.max_skipped={max_skipped}; correct the data or raise that fraction"
            )

    def _examples(self) -> str:
        rows = [
            (f"line {row.line}, " if row.line else "") + f"{row.image_id!r}, {row.reason}"
            + (f" ({row.detail[:80]})" if row.detail and row.detail != row.image_id else "")
            for row in self.skipped[:NUM_EXAMPLES]
        ]  # fmt: skip
        return f"; the first: {'; '.join(rows)}" if rows else ""


def write_skipped(table: CaptionTable, path: str | Path) -> None:
    """Write `line,image_id,reason,detail` for every skipped row, in file order; only the header if none."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["line", "image_id", "reason", "detail"])
        writer.writerows([row.line, row.image_id, row.reason, row.detail] for row in table.skipped)


def _by_count(reasons: Mapping[str, int]) -> str:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ordered)
