"""Every kind of image file found in data sets: decoded to the expected pixels, or refused with its name."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images import decode
from src.datamodule.images.decode import UnreadableImage, check_header, check_images, load_image

RED, WHITE = (250, 10, 20), (255, 255, 255)


def pixel(path: Path, left: int = 2, top: int = 2) -> tuple[int, ...]:
    return tuple(load_image(path)[:, top, left].tolist())


def near(found: tuple[int, ...], expected: tuple[int, ...], by: int = 3) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


def noise(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of 70 bytes whose header claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp", "gif"])
def test_lossless_formats_give_the_pixels_that_were_saved(tmp_path: Path, suffix: str) -> None:
    image = noise() if suffix not in ("webp", "gif") else Image.new("RGB", (40, 30), RED)
    image.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    found = load_image(tmp_path / f"a.{suffix}")
    assert found.dtype == torch.uint8
    assert found.shape == (3, 30, 40)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(image))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 20}])
def test_jpeg_gives_pillows_pixels(tmp_path: Path, mode: str, options: dict[str, object]) -> None:
    path = tmp_path / "a.jpg"
    noise().convert(mode).save(path, **options)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(load_image(path).permute(1, 2, 0).numpy(), expected)


def test_content_decides_the_format_and_not_the_name(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.bmp")
    os.rename(tmp_path / "a.bmp", tmp_path / "a.jpg")
    assert load_image(tmp_path / "a.jpg").shape == (3, 30, 40)


def test_animated_gif_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 0, 250), (0, 250, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "a.gif") == RED


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (16, 16), RED).convert("CMYK").save(tmp_path / f"a.{suffix}")
    assert near(pixel(tmp_path / f"a.{suffix}"), RED, by=6)


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), RED).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    assert near(pixel(tmp_path / "a.png"), RED)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257, 1), (32896, 128), (65535, 255)])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_keeps_its_scale(tmp_path: Path, value: int, expected: int, suffix: str) -> None:
    Image.fromarray(np.full((8, 8), value, dtype=np.uint16)).save(tmp_path / f"a.{suffix}")
    assert pixel(tmp_path / f"a.{suffix}") == (expected,) * 3


@pytest.mark.parametrize(("value", "expected"), [(0.5, 128), (200.0, 200)])
def test_float_grey_is_a_fraction_or_a_level(tmp_path: Path, value: float, expected: int) -> None:
    Image.fromarray(np.full((8, 8), value, dtype=np.float32)).save(tmp_path / "a.tiff")
    assert pixel(tmp_path / "a.tiff") == (expected,) * 3


def test_one_bit_image_is_black_and_white(tmp_path: Path) -> None:
    Image.new("1", (8, 8), 1).save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == WHITE


@pytest.mark.parametrize(("alpha", "expected"), [(0, WHITE), (255, RED), (128, (252, 132, 137))])
def test_transparency_lies_over_white(tmp_path: Path, alpha: int, expected: tuple[int, ...]) -> None:
    Image.new("RGBA", (8, 8), (*RED, alpha)).save(tmp_path / "a.png")
    assert near(pixel(tmp_path / "a.png"), expected, by=1)


def test_transparent_grey_lies_over_white(tmp_path: Path) -> None:
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == WHITE


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_transparent_colour_lies_over_white(tmp_path: Path, mode: str) -> None:
    """PNG's tRNS chunk: one colour of an RGB or grey image, or one entry of a palette, is see-through."""
    colour = {"RGB": RED, "L": 7, "P": 0}[mode]
    Image.new(mode, (8, 8), colour).save(tmp_path / "a.png", transparency=colour)
    assert pixel(tmp_path / "a.png") == WHITE


def test_transparent_gif_lies_over_white(tmp_path: Path) -> None:
    Image.new("P", (8, 8), 0).save(tmp_path / "a.gif", transparency=0)
    assert pixel(tmp_path / "a.gif") == WHITE


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    """The red half is on the left as saved; EXIF says where the camera was turned."""
    image = Image.new("RGB", (40, 24), (0, 0, 0))
    image.paste(RED, (0, 0, 20, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 95} if suffix != "png" else {}))
    found = load_image(tmp_path / f"a.{suffix}")
    red_side = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}
    side = red_side[orientation]
    assert found.shape == ((3, 24, 40) if side in ("left", "right") else (3, 40, 24))
    sides = {
        "left": found[0, :, :8],
        "right": found[0, :, -8:],
        "top": found[0, :8],
        "bottom": found[0, -8:],
    }
    assert sides[side].float().mean() > 200
    assert sum(side_pixels.float().mean() > 200 for side_pixels in sides.values()) == 1


def test_one_pixel_is_a_image(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        Image.new("RGB", (1, 1), WHITE).save(tmp_path / f"a.{suffix}")
        assert load_image(tmp_path / f"a.{suffix}").tolist() == [[[255]], [[255]], [[255]]]


def test_a_long_thin_image_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (30_000, 2), RED).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").shape == (3, 2, 30_000)


@pytest.mark.parametrize("read", [load_image, check_header])
@pytest.mark.parametrize("size", [(30_000, 30_000), (10_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bomb_is_refused_from_its_header(tmp_path: Path, read, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(*size))
    with pytest.raises(UnreadableImage, match=r"bomb\.png: .*pixels"):
        read(tmp_path / "bomb.png")


def test_bomb_of_a_format_that_pillow_reads_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(decode, "PIXEL_LIMIT", 1000)
    noise().save(tmp_path / "bomb.bmp")
    with pytest.raises(UnreadableImage, match=r"bomb\.bmp: 40 x 30 pixels"):
        load_image(tmp_path / "bomb.bmp")


def test_file_over_the_byte_limit_is_not_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(decode, "BYTE_LIMIT", 10)
    noise().save(tmp_path / "big.png")
    with pytest.raises(UnreadableImage, match=r"big\.png: a file of .* bytes"):
        load_image(tmp_path / "big.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp"])
@pytest.mark.parametrize("fraction", [0.3, 0.7, 0.95])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, fraction: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise(200, 150).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(UnreadableImage, match=f"cut.{suffix}: "):
        load_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a file of 0 bytes"),
        (b"<html>404 Not Found</html>", "not an image of a known format"),
        (b"\xff\xd8\xff", "not an image of a known format|broken|truncated|Truncated|EOF"),
        (b"\x89PNG\r\n\x1a\n", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (b"GIF89a" + bytes(20), "."),
        (os.urandom(2000), "not an image of a known format"),
    ],
)
def test_what_is_not_an_image_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=rf"a\.jpg: .*({reason})") as caught:
        load_image(tmp_path / "a.jpg")
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for read in (load_image, check_header):
        with pytest.raises(UnreadableImage, match=r"gone\.jpg: no such file"):
            read(tmp_path / "gone.jpg")


def test_folder_and_impossible_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="not a file"):
        load_image(tmp_path)
    with pytest.raises(UnreadableImage):
        load_image("a\0b.jpg")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch) -> None:
    noise().save(tmp_path / "a.png")

    def refuse(*_: object, **settings: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UnreadableImage, match=r"a\.png: .*Permission denied"):
        load_image(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImage, match="not a file"):
        load_image(tmp_path / "pipe.jpg")


def test_box_crops(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), WHITE)
    image.paste(RED, (5, 2, 15, 8))
    image.save(tmp_path / "a.png")
    part = load_image(tmp_path / "a.png", box=(5, 2, 15, 8))
    assert part.shape == (3, 6, 10)
    assert part[0].eq(RED[0]).all()
    assert load_image(tmp_path / "a.png", box=(-5, 2, 500, 8)).shape == (3, 6, 20)


@pytest.mark.parametrize("box", [(30, 0, 40, 5), (5, 5, 5, 9), (9, 0, 2, 5), (-9, -9, -1, -1)])
def test_box_outside_of_the_image_is_refused(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    noise(20, 10).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match=r"a\.png: box .* outside the image of 20 x 10"):
        load_image(tmp_path / "a.png", box)


def test_damage_that_stops_torchvision_is_left_to_pillow(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("cannot decode")

    noise().save(tmp_path / "a.png")
    expected = load_image(tmp_path / "a.png")
    monkeypatch.setattr(decode, "decode_image", fail)
    assert torch.equal(load_image(tmp_path / "a.png"), expected)


def test_check_images_names_the_unreadable_ones_in_table_order(tmp_path: Path) -> None:
    noise().save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    names = ["text.png", "good.png", "empty.png", "gone.png"]
    table = [CaptionedImage(name, str(tmp_path / name), ("a",), name) for name in names]
    table.append(CaptionedImage("good.png#1", str(tmp_path / "good.png"), ("a",), "good.png", (0, 0, 2, 2)))
    found = check_images(table, workers=2)
    assert list(found) == ["text.png", "empty.png", "gone.png"]
    assert "no such file" in found["gone.png"]
    assert check_images([]) == {}


def test_error_names_stay_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.jpg"
    path.write_text("no image")
    with pytest.raises(UnreadableImage) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_the_callers_own_pixel_limit_holds(form):
    buffer = io.BytesIO()
    Image.new("L", (20, 10)).save(buffer, form)
    assert decode.decode_bytes(buffer.getvalue(), "a", pixel_limit=200).shape == (3, 10, 20)
    with pytest.raises(UnreadableImage, match="a: 20 x 10 pixels; expected at most 199 in all"):
        decode.decode_bytes(buffer.getvalue(), "a", pixel_limit=199)


def test_a_member_of_a_tar_file_is_read_by_its_span(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    noise(9, 7).save(tmp_path / "b.bmp")
    data = [(tmp_path / name).read_bytes() for name in ("a.png", "b.bmp")]
    (tmp_path / "x.tar").write_bytes(b"header" + data[0] + data[1])
    spans = [(6, len(data[0])), (6 + len(data[0]), len(data[1]))]
    for name, span, content in zip(("a.png", "b.bmp"), spans, data, strict=True):
        image = CaptionedImage(name, str(tmp_path / "x.tar"), ("a",), name, span=span)
        assert decode.read_image_bytes(image) == content
        assert torch.equal(load_image(tmp_path / name), load_image(image.path, span=span))
        assert check_images([image]) == {}
    for span in ((6, 0), (6, 10**6), (8, len(data[0]))):
        outside = CaptionedImage("a", str(tmp_path / "x.tar"), ("a",), "a", span=span)
        assert list(check_images([outside])) == ["a"]


def test_importing_leaves_pillows_warnings_as_they_are() -> None:
    code = "import warnings, PIL.Image, torchvision;"
    code += "before = list(warnings.filters); import src.datamodule.images.decode;"
    code += "assert not any(f not in before and 'PIL' in str(f) for f in warnings.filters), warnings.filters"
    subprocess.run([sys.executable, "-c", code], check=True)
