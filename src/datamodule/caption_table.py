"""The table of captioned images that every reader returns, and its checks."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from src.utils.errors import UserError

UNREADABLE = "unreadable image"


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One image, or one box of an image, with its captions."""

    image_id: str  # unique: the path within the image folder, tar or parquet file; a subfigure adds "#<n>"
    path: str  # absolute path of the image file, or of the tar or parquet file that holds it
    captions: tuple[str, ...]  # at least one; whitespace collapsed, without duplicates
    group: str  # images of one group stay in one split (Flickr: the image, MedICaT: the paper)
    box: tuple[int, int, int, int] | None = None  # (left, top, right, bottom) in pixels, of a cropped image
    license: str = ""  # as the data states it, "" if it states none
    split: str | None = None  # "train", "val" or "test" where the data has an official split
    # (offset, size) in bytes of a tar's member, (column, row) of a parquet file; None for an ordinary file
    span: tuple[int, int] | tuple[str, int] | None = None
    content: bytes | None = None  # the image file itself, where it was streamed


def with_unique_ids(images: Sequence[CaptionedImage], folder: str = "") -> list[CaptionedImage]:
    """Put the file's path (within `folder`) before ids that several images have, and a number behind where needed."""
    count, seen, named = Counter(image.image_id for image in images), Counter[str](), []
    for image in images:
        name = image.image_id
        if count[name] > 1:
            file = os.path.relpath(image.path, folder) if folder else image.path
            name = f"{file.replace(os.sep, '/')}/{name}"
            seen[name] += 1
            name = f"{name}#{seen[name]}" if seen[name] > 1 else name
        named.append(replace(image, image_id=name))
    return named


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of the captions file that could not be used. Lines count from 1, header included; 0 is no line."""

    line: int
    image_id: str
    reason: str
    detail: str

    def __str__(self) -> str:
        line = f"line {self.line}, " if self.line else ""
        detail = f" ({self.detail[:80]})" if self.detail not in ("", self.image_id) else ""
        return f"{line}{self.image_id!r}, {self.reason}{detail}"


@dataclass
class CaptionTable:
    """The images in file order, and every row that could not be used."""

    images: list[CaptionedImage]
    skipped: list[SkippedRow]
    rows_read: int  # rows of the captions file, without header and blank lines
    # Rows that a setting excludes (`radiology_only`), by reason: no error in the data, not counted as skipped.
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
        images, left = [], self.num_pairs if num_samples is None else num_samples
        for image in self.images:
            if left > 0:
                images.append(replace(image, captions=image.captions[:left]))
            left -= len(image.captions)
        return replace(self, images=images)

    def without_unreadable(self, reasons: Mapping[str, str]) -> "CaptionTable":
        """Remove the images named in `reasons` (image_id -> reason); each of their captions counts as skipped."""
        skipped, images = list(self.skipped), []
        for image in self.images:
            if image.image_id in reasons:
                row = SkippedRow(0, image.image_id, UNREADABLE, reasons[image.image_id])
                skipped += [row] * len(image.captions)
            else:
                images.append(image)
        return replace(self, images=images, skipped=skipped)

    def summary(self) -> str:
        """One line: rows, images, captions, and the skipped and excluded rows by reason."""
        text = f"{self.rows_read:,} rows: {len(self.images):,} images, {self.num_pairs:,} captions"
        skipped = Counter(row.reason for row in self.skipped)
        for label, counts in (
            (f"skipped {len(self.skipped):,} rows", skipped),
            ("excluded by settings", self.excluded),
        ):
            if counts:
                reasons = (f"{reason} {count:,}" for reason, count in Counter(counts).most_common())
                text += f"; {label}: {', '.join(reasons)}"
        return text

    def check(self, max_skipped: float = 0.01) -> None:
        """Raise UserError where no image is left or more than the fraction `max_skipped` of the rows was skipped."""
        if not self.images or self.skipped_fraction > max_skipped:
            first = f"; the first: {'; '.join(map(str, self.skipped[:5]))}" if self.skipped else ""
            problem = f"{self.skipped_fraction:.1%} of the rows cannot be used"
            raise UserError(
                f"{problem if self.images else 'no image with a caption is left'}: {self.summary()}{first}; expected "
                f"one or more and at most datamodule.max_skipped={max_skipped}; correct the data or that fraction"
            )
