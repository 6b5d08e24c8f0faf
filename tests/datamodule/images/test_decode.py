"""Every kind of image file found in data sets: decoded to the expected pixels, or an error with its name."""

import io
import os
import runpy
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import ViTImageProcessor

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images import decode
from src.datamodule.images.decode import UnreadableImage, check_images, load_image
from src.datamodule.images.transform import ImageTransform

RED, WHITE = (250, 10, 20), (255, 255, 255)


def check_header(path) -> None:
    """Raise what `check_images` reports of one image."""
    for reason in check_images([CaptionedImage("a", str(path), ("a",), "a")]).values():
        raise UnreadableImage(reason)


def noise(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(width: int, height: int, bits: int = 8, pixels: bytes = bytes(10)) -> bytes:
    """A PNG of RGB whose header claims a size."""
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content


@pytest.mark.parametrize(
    ("suffix", "mode", "options"),
    [(suffix, "RGB", {}) for suffix in ("png", "bmp", "tiff", "ppm", "gif")]
    + [("webp", "RGB", {"lossless": True}), ("jpg", "RGB", {}), ("jpg", "L", {}), ("jpg", "RGB", {"progressive": True}),
       ("jpg", "RGB", {"comment": b"c" * 60_000})],
)  # fmt: skip
def test_each_format_gives_pillows_pixels(tmp_path: Path, suffix: str, mode: str, options: dict[str, object]) -> None:
    path = tmp_path / f"a.{suffix}"
    noise().convert(mode).save(path, **options)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    found = load_image(path)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def solid(mode: str, value: object) -> Image.Image:
    return Image.new(mode, (8, 8), value)


def gray(value: float, dtype: str) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, dtype=dtype))


CASES = {
    "cmyk jpeg": ("jpg", Image.new("RGB", (16, 16), RED).convert("CMYK"), {}, RED),
    "cmyk tiff": ("tiff", Image.new("RGB", (16, 16), RED).convert("CMYK"), {}, RED),
    "palette": ("png", solid("RGB", RED).convert("P", palette=Image.Palette.ADAPTIVE), {}, RED),
    "one bit": ("png", solid("1", 1), {}, WHITE),
    "clear": ("png", solid("RGBA", (*RED, 0)), {}, WHITE),
    "opaque": ("png", solid("RGBA", (*RED, 255)), {}, RED),
    "half clear": ("png", solid("RGBA", (*RED, 128)), {}, (252, 132, 137)),
    "clear gray": ("png", solid("LA", (0, 0)), {}, WHITE),
    "clear color": ("png", solid("RGB", RED), {"transparency": RED}, WHITE),
    "clear level": ("png", solid("L", 7), {"transparency": 7}, WHITE),
    "clear palette entry": ("png", solid("P", 0), {"transparency": 0}, WHITE),
    "clear gif": ("gif", solid("P", 0), {"transparency": 0}, WHITE),
    "float fraction": ("tiff", gray(0.5, "float32"), {}, (128,) * 3),
    "float level": ("tiff", gray(200, "float32"), {}, (200,) * 3),
} | {
    f"16 bit {suffix} {value}": (suffix, gray(value, "uint16"), {}, (expected,) * 3)
    for value, expected in ((0, 0), (257, 1), (32896, 128), (65535, 255))
    for suffix in ("png", "tiff")
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_mode_becomes_rgb_over_white(tmp_path: Path, name: str) -> None:
    """16-bit gray keeps its scale, float gray is a fraction or a level, and what is transparent lies over white."""
    suffix, image, options, expected = CASES[name]
    image.save(tmp_path / f"a.{suffix}", **options)
    found = load_image(tmp_path / f"a.{suffix}")[:, 2, 2].tolist()
    by = 6 if "cmyk" in name else 1
    assert all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


def test_16_bit_color_keeps_its_high_byte(tmp_path: Path) -> None:
    """libpng gives 16 bits a channel, torchvision's reader of 8 bits would not."""
    (tmp_path / "a.png").write_bytes(png(1, 1, 16, b"\0" + bytes([200, 1, 100, 2, 50, 3])))
    assert load_image(tmp_path / "a.png").flatten().tolist() == [200, 100, 50]


def test_content_decides_the_format_and_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, (0, 0, 250), (0, 250, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    os.rename(tmp_path / "a.gif", tmp_path / "a.jpg")
    assert tuple(load_image(tmp_path / "a.jpg")[:, 2, 2].tolist()) == RED


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_rotation_is_applied(tmp_path: Path, suffix: str) -> None:
    """The red half is on the left as saved; EXIF says where the camera was turned."""
    image = Image.new("RGB", (40, 24), (0, 0, 0))
    image.paste(RED, (0, 0, 20, 24))
    exif = Image.Exif()
    for orientation, side in enumerate(["left", "right", "right", "left", "top", "top", "bottom", "bottom"], 1):
        exif[0x0112] = orientation
        image.save(tmp_path / f"a.{suffix}", exif=exif)
        red = load_image(tmp_path / f"a.{suffix}")[0].float()
        assert red.shape == ((24, 40) if side in ("left", "right") else (40, 24))
        edges = {"left": red[:, :8], "right": red[:, -8:], "top": red[:8], "bottom": red[-8:]}
        assert [name for name, edge in edges.items() if edge.mean() > 200] == [side]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [load_image, check_header])
@pytest.mark.parametrize("size", [(30_000, 30_000), (20_000, 15_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bomb_is_refused_from_its_header(tmp_path: Path, read, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png(*size))
    with pytest.raises(UnreadableImage, match=r"bomb\.png: .*pixels"):
        read(tmp_path / "bomb.png")


def test_limits_of_pixels_and_bytes_hold(tmp_path: Path, monkeypatch) -> None:
    noise().save(tmp_path / "big.bmp")
    with pytest.raises(UnreadableImage, match="a: 40 x 30 pixels; expected at most 1,199"):
        decode.decode_bytes((tmp_path / "big.bmp").read_bytes(), "a", pixel_limit=1199)
    monkeypatch.setattr(decode, "BYTE_LIMIT", 1000)
    with pytest.raises(UnreadableImage, match=r"big\.bmp: .*expected .* 1,000"):
        load_image(tmp_path / "big.bmp")


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_much_larger_jpeg_is_decoded_at_a_reduced_scale_to_the_processors_pixels(orientation: int) -> None:
    """2,400 x 1,800 pixels for an encoder of 64: within 2 of 255 of transformers' processor on the whole image."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    detail = Image.effect_noise((600, 450), 40).resize((2400, 1800), Image.Resampling.BICUBIC)
    photo = Image.merge("RGB", (detail, Image.linear_gradient("L").resize((2400, 1800)), detail.rotate(180)))
    photo.save(buffer, "JPEG", quality=92, exif=exif)
    processor = ViTImageProcessor(size={"height": 64, "width": 64})
    whole = ImageOps.exif_transpose(Image.open(buffer))
    expected = processor(whole, return_tensors="pt")["pixel_values"][0]
    reduced = decode.decode_bytes(buffer.getvalue(), "a", side=64)
    assert reduced.shape == (3, whole.height // 4, whole.width // 4)
    found = ImageTransform.from_processor(processor)(reduced)
    assert (found - expected).abs().max() * 0.5 <= 2.01 / 255


def test_avif_and_heic(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 30), RED)
    image.save(tmp_path / "a.avif")
    assert load_image(tmp_path / "a.avif").shape == (3, 30, 40)
    if "HEIF" in decode.FORMATS:
        image.save(tmp_path / "a.heic")
        assert load_image(tmp_path / "a.heic").shape == (3, 30, 40)
    (tmp_path / "b.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UnreadableImage, match="pillow-heif"):
        load_image(tmp_path / "b.heic")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp"])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise(200, 150).save(path)
    whole = path.read_bytes()
    for fraction in (0.3, 0.7, 0.95):
        path.write_bytes(whole[: int(len(whole) * fraction)])
        with pytest.raises(UnreadableImage, match=f"cut.{suffix}: "):
            load_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a file of 0 bytes"),
        (b"<html>404 Not Found</html>", "not an image of a known format"),
        (b"\xff\xd8\xff\xda" + bytes(40), "."),
        (b"\x89PNG\r\n\x1a\n", "not an image of a known format"),
        (b"GIF89a" + bytes(20), "."),
    ],
)
def test_what_is_not_an_image_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a\nb.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        load_image(tmp_path / "a\nb.jpg")
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_impossible_names_are_refused(tmp_path: Path) -> None:
    for read in (load_image, check_header):
        with pytest.raises(UnreadableImage, match=r"gone\.jpg: no such file"):
            read(tmp_path / "gone.jpg")
        with pytest.raises(UnreadableImage, match="not a file"):
            read(tmp_path)
        with pytest.raises(UnreadableImage):
            read("a\0b.jpg")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        with pytest.raises(UnreadableImage, match="not a file"):  # and does not hang
            load_image(tmp_path / "pipe.jpg")


def test_box_crops(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), WHITE)
    image.paste(RED, (5, 2, 15, 8))
    image.save(tmp_path / "a.png")
    cropped = load_image(tmp_path / "a.png", box=(5, 2, 15, 8))
    assert cropped.shape == (3, 6, 10)
    assert cropped[0].eq(RED[0]).all()
    assert load_image(tmp_path / "a.png", box=(-5, 2, 500, 8)).shape == (3, 6, 20)
    for box in ((30, 0, 40, 5), (5, 5, 5, 9), (9, 0, 2, 5), (-9, -9, -1, -1)):
        with pytest.raises(UnreadableImage, match=r"a\.png: box .* outside the image of 20 x 10"):
            load_image(tmp_path / "a.png", box)


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


def test_a_member_of_a_tar_file_is_read_by_its_span(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    noise(9, 7).save(tmp_path / "b.bmp")
    data = [(tmp_path / name).read_bytes() for name in ("a.png", "b.bmp")]
    tar = str(tmp_path / "x.tar")
    Path(tar).write_bytes(b"header" + data[0] + data[1])
    spans = [(6, len(data[0])), (6 + len(data[0]), len(data[1]))]
    for name, span in zip(("a.png", "b.bmp"), spans, strict=True):
        assert torch.equal(load_image(tmp_path / name), load_image(tar, span=span))
        assert check_images([CaptionedImage(name, tar, ("a",), name, span=span)]) == {}
    for span in ((6, 0), (6, 10**6), (8, len(data[0]))):
        assert list(check_images([CaptionedImage("a", tar, ("a",), "a", span=span)])) == ["a"]


def test_importing_leaves_pillows_warnings_as_they_are() -> None:
    before = list(warnings.filters)
    runpy.run_path(decode.__file__)
    assert warnings.filters == before
