"""Read size and kind of a JPEG or PNG from its first bytes: a few microseconds, no decoder started."""

from dataclasses import dataclass

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers that every libjpeg decodes: baseline, extended, progressive.
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
JPEG_SCAN = 0xDA
JPEG_STANDALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
PNG_GRAY, PNG_RGB = 0, 2


@dataclass(frozen=True, slots=True)
class Header:
    """plain: 8 bits, gray or RGB, no special chunk, so that torchvision decodes the pixels that Pillow would."""

    kind: str  # "jpeg" or "png"
    width: int
    height: int
    plain: bool


def read_header(data: bytes | bytearray) -> Header | None:
    """Parse the header of a JPEG or PNG; None for any other file and for one that ends before its size."""
    if data.startswith(JPEG_MAGIC):
        return _jpeg(data)
    if data.startswith(PNG_MAGIC):
        return _png(data)
    return None


def _jpeg(data: bytes | bytearray) -> Header | None:
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in JPEG_STANDALONE:
            at += 2
        elif marker in JPEG_FRAMES:
            precision, components = data[at + 4], data[at + 9]
            height = int.from_bytes(data[at + 5 : at + 7])
            width = int.from_bytes(data[at + 7 : at + 9])
            # Four components are CMYK; a height of 0 is given further down in the file.
            plain = precision == 8 and components in (1, 3) and height > 0
            return Header("jpeg", width, height, plain)
        elif marker == JPEG_SCAN:
            return None
        else:
            at += 2 + max(int.from_bytes(data[at + 2 : at + 4]), 2)
    return None


def _png(data: bytes | bytearray) -> Header | None:
    if data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    plain = data[24] == 8 and data[25] in (PNG_GRAY, PNG_RGB)
    at = 33
    while plain and at + 8 <= len(data):
        name = data[at + 4 : at + 8]
        if name == b"IDAT":
            break
        # Transparency, and color profiles: libpng prints a line for each that it dislikes.
        plain = name not in (b"tRNS", b"iCCP")
        at += 12 + int.from_bytes(data[at : at + 4])
    return Header("png", width, height, plain)
