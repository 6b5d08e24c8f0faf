"""The table of captioned images that every reader returns, and its checks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from src.utils.errors import UserError

UNREADABLE = "unreadable image"
NUM_EXAMPLES = 5  # skipped rows that an error message names


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image, or one box of an image, with its captions.

    image_id: unique in the table: the path within the image folder, with forward slashes (MedICaT:
        "{pdf_hash}_{fig_uri}", a subfigure adds "#<n>"; tar: "{shard}/{key}").
    """

    image_id: str
    path: str  # absolute path of the image file, or of the tar that holds it
    captions: tuple[str, ...]  # at least one; whitespace collapsed, without duplicates
    group: str  # images of one group stay in one split (Flickr: the image, MedICaT: the paper)
    box: tuple[int, int, int, int] | None = None  # (left, top, right, bottom) in pixels, of a cropped image
    license: str = ""  # as the data states it, "" if it states none
    split: str | None = None  # "train", "val" or "test" where the data has an official split
    span: tuple[int, int] | None = None  # (offset, size) in bytes within the tar; None for an ordinary file


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
        rows = (len(self.skipped) - unreadable) / max(self.rows_read, 1)
        return rows + unreadable / max(self.num_pairs + unreadable, 1)

    def take(self, num_samples: int | None) -> "CaptionTable":
        """Return the first `num_samples` pairs in image order, of the last image what fits; all when None."""
        if num_samples is None:
            return self
        images, left = [], num_samples
        for image in self.images:
            if left <= 0:
                break
            images.append(replace(image, captions=image.captions[:left]))
            left -= len(image.captions)
        return replace(self, images=images)

    def without_unreadable(self, reasons: Mapping[str, str]) -> "CaptionTable":
        """Remove the images named in `reasons` (image_id -> reason); each of their captions counts as skipped."""
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
            text += (
                f"; skipped {len(self.skipped):,} rows ({_by_count(Counter(r.reason for r in self.skipped))})"
            )
        if self.excluded:
            text += f"; excluded by settings: {_by_count(self.excluded)}"
        return text

    def check(self, max_skipped: float = 0.01) -> None:
        """Stop where too many rows are skipped; the message names the first of them with their reasons.

        UserError where more than the fraction `max_skipped` of the rows was skipped, or no image is left.
        """
        rows = [
            (f"line {row.line}, " if row.line else "") + f"{row.image_id!r}, {row.reason}"
            + (f" ({row.detail[:80]})" if row.detail and row.detail != row.image_id else "")
            for row in self.skipped[:NUM_EXAMPLES]
        ]  # fmt: skip
        found = self.summary() + (f"; the first: {'; '.join(rows)}" if rows else "")
        if not self.images or self.skipped_fraction > max_skipped:
            fraction = f"{self.skipped_fraction:.1%} of the rows cannot be used"
            raise UserError(
                f"{fraction if self.images else 'no image with a caption is left'}: {found}; expected one or more "
                f"and at most datamodule.max_skipped={max_skipped}; correct the data or that fraction"
            )


def _by_count(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common())
