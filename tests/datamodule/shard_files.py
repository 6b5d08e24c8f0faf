"""Tar shards for tests, as img2dataset writes them, and as someone hostile would."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from src.datamodule.caption_table import CaptionedImage


def picture(number: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (number % 256, number // 256, 99)).save(file, kind)
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_shard(path: Path, numbers: range, broken: tuple[int, ...] = ()) -> Path:
    """Samples `numbers`, each with picture, txt and json; the pictures of `broken` numbers are cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            data = picture(number)
            add(tar, f"{number:09}.png", data[:40] if number in broken else data)
            add(tar, f"{number:09}.txt", f"picture {number}".encode())
            record = {"caption": f"picture {number}", "key": f"{number:09}", "status": "success"}
            add(tar, f"{number:09}.json", json.dumps(record).encode())
    return path


def write_captioned(path: Path, images: Sequence[CaptionedImage]) -> None:
    """A shard of jpg, txt with the first caption, json with all of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, image in enumerate(images):
            add(tar, f"{number:09}.jpg", Path(image.path).read_bytes())
            add(tar, f"{number:09}.txt", image.captions[0].encode())
            add(
                tar,
                f"{number:09}.json",
                json.dumps({"captions": image.captions, "status": "success"}).encode(),
            )
