"""The header reader against Pillow, on whole, odd and cut files."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from src.datamodule.images.headers import read_header


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (17, 3), (640, 480), (40_000, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_pictures(size: tuple[int, int], kind: str, mode: str) -> None:
    header = read_header(saved(Image.new(mode, size), kind))
    assert header is not None
    assert (header.kind, header.width, header.height, header.plain) == (kind.lower(), *size, True)


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("CMYK", "JPEG", {}),
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("P", "PNG", {}),
        ("1", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGB", "PNG", {"transparency": (0, 0, 0)}),
        ("RGB", "PNG", {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}),
    ],
)
def test_pictures_that_need_care(mode: str, kind: str, options: dict[str, object]) -> None:
    header = read_header(saved(Image.new(mode, (9, 5)), kind, **options))
    assert header is not None
    assert (header.width, header.height, header.plain) == (9, 5, False)


def test_long_segments_and_fill_bytes_before_the_frame() -> None:
    whole = saved(Image.new("RGB", (9, 5)), "JPEG", exif=b"Exif\0\0" + bytes(60_000), comment=b"c" * 999)
    assert read_header(whole) == read_header(saved(Image.new("RGB", (9, 5)), "JPEG"))
    assert read_header(whole[:2] + b"\xff\xff" + whole[2:]) == read_header(whole)
    assert read_header(whole[:2] + b"\xff\x01" + whole[2:]) == read_header(whole)


def test_other_files_have_no_header() -> None:
    assert read_header(b"") is None
    assert read_header(b"GIF89a") is None
    assert read_header(saved(Image.new("RGB", (9, 5)), "BMP")) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_file_has_its_header_or_none(kind: str) -> None:
    whole = saved(Image.new("RGB", (9, 5)), kind)
    for length in range(len(whole)):
        header = read_header(whole[:length])
        assert header is None or (header.width, header.height) == (9, 5)


def test_scan_before_any_frame_has_no_header() -> None:
    assert read_header(b"\xff\xd8\xff\xda" + bytes(40)) is None
    assert read_header(b"\xff\xd8\xff\xe0\x00\x02" + bytes(40)) is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b""]), st.binary(max_size=300))
def test_any_bytes_end_in_a_header_or_none(start: bytes, rest: bytes) -> None:
    header = read_header(start + rest)
    assert header is None or header.kind in ("jpeg", "png")
