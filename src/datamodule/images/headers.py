"""Size and kind of a JPEG or PNG from its first bytes: a few microseconds, no decoder started.

Only what tells a plain picture (8 bits, grey or RGB, nothing special) from one that needs care.
"""

from dataclasses import dataclass

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers that every libjpeg decodes: baseline, extended, progressive.
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
JPEG_SCAN = 0xDA
JPEG_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
PNG_GREY, PNG_RGB = 0, 2


@dataclass(frozen=True, slots=True)
class Header:
    """kind: "jpeg" or "png"; plain: torchvision's decoder gives the pixels that Pillow would give."""

    kind: str
    width: int
    height: int
    plain: bool


def read_header(data: bytes | bytearray) -> Header | None:
    """The header of a JPEG or PNG; None for any other file and for one that breaks off before its size."""
    if data.startswith(JPEG_MAGIC):
        return _jpeg(data)
    if data.startswith(PNG_MAGIC):
        return _png(data)
    return None


def _jpeg(data: bytes | bytearray) -> Header | None:
    place = 2
    while place + 9 < len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in JPEG_ALONE:
            place += 2
        elif marker in JPEG_FRAMES:
            precision, components = data[place + 4], data[place + 9]
            height = int.from_bytes(data[place + 5 : place + 7])
            width = int.from_bytes(data[place + 7 : place + 9])
            # Four components are CMYK; a height of 0 stands further down in the file.
            plain = precision == 8 and components in (1, 3) and height > 0
            return Header("jpeg", width, height, plain)
        elif marker == JPEG_SCAN:
            return None
        else:
            place += 2 + max(int.from_bytes(data[place + 2 : place + 4]), 2)
    return None


def _png(data: bytes | bytearray) -> Header | None:
    if data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    plain = data[24] == 8 and data[25] in (PNG_GREY, PNG_RGB)
    place = 33
    while plain and place + 8 <= len(data):
        name = data[place + 4 : place + 8]
        if name == b"IDAT":
            break
        # Transparency, and colour profiles: libpng writes a line to the terminal for each that it dislikes.
        plain = name not in (b"tRNS", b"iCCP")
        place += 12 + int.from_bytes(data[place : place + 4])
    return Header("png", width, height, plain)
