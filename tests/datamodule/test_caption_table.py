"""The table's checks, the pairs that `num_samples` takes."""

import pytest

from src.datamodule.caption_table import CaptionedImage, CaptionTable, SkippedRow
from src.utils.errors import UserError


def make_table(num_images: int, num_groups: int | None = None, captions: int = 5) -> CaptionTable:
    images = [
        CaptionedImage(
            f"{number}.jpg",
            f"/images/{number}.jpg",
            tuple(f"caption {place} of {number}" for place in range(captions)),
            group=f"group {number % (num_groups or num_images)}",
        )
        for number in range(num_images)
    ]
    return CaptionTable(images, [], rows_read=num_images * captions)


def test_take_counts_pairs_in_image_order() -> None:
    taken = make_table(10).take(12)
    assert [len(image.captions) for image in taken.images] == [5, 5, 2]
    assert [image.image_id for image in taken.images] == ["0.jpg", "1.jpg", "2.jpg"]
    assert make_table(10).take(None).num_pairs == make_table(10).take(1000).num_pairs == 50


def test_summary_counts_by_reason() -> None:
    table = make_table(2)
    table.skipped = [SkippedRow(2, "a", "no image", ""), SkippedRow(3, "b", "no image", "")]
    table.skipped.append(SkippedRow(4, "c", "empty caption", ""))
    table.excluded = {"not radiology": 7}
    assert table.summary() == (
        "10 rows: 2 images, 10 captions; skipped 3 rows: no image 2, empty caption 1; "
        "excluded by settings: not radiology 7"
    )


def test_check_passes_up_to_the_fraction_and_stops_above() -> None:
    table = make_table(20)  # 100 rows
    table.skipped = [SkippedRow(7, "x.jpg", "no image", "")]
    table.check(0.01)
    table.skipped.append(SkippedRow(9, "y.jpg", "empty caption", ""))
    with pytest.raises(UserError, match=r"2\.0% of the rows.*line 7, 'x\.jpg', no image.*max_skipped=0\.01"):
        table.check(0.01)
    table.check(1.0)
    table.skipped = [SkippedRow(n, f"{n}.png", "no image", f"near {n}") for n in range(2, 9)]
    with pytest.raises(UserError) as caught:
        table.check(0.01)
    for number in range(2, 7):  # the first five
        assert f"line {number}, '{number}.png', no image (near {number})" in str(caught.value)
    assert "7.png" not in str(caught.value)
    with pytest.raises(UserError, match="no image with a caption is left"):
        CaptionTable([], [], 0).check(1.0)
