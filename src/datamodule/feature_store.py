"""Cached features: the frozen backbone's output on disk, keyed by image content, read by memory map.

A shard is a safetensors file, key -> features (P,D) of one image; its name is the hash of its bytes.
"""

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from src.datamodule.caption_table import CaptionedImage
from src.datamodule.images.decode import UnreadableImage, read_bytes
from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)
SUBFOLDER = "caption_features"  # below the user's cache_dir, which may hold foreign files
MARKER = ".made_by_feature_cache"  # only folders with it are counted and pruned
OUR_FILE = re.compile(r"[0-9a-f]{24}\.safetensors|\.[0-9a-f]{24}\.safetensors\..*\.tmp")
STALE_SECONDS = 3600  # a temporary file that old belongs to a process that was killed

View = tuple[CaptionedImage, int]  # an image and the number of its view; view 0 is the image as it is


def content_digest(data: bytes | bytearray) -> str:
    """Hash the undecoded bytes of an image."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def feature_key(digest: str, image: CaptionedImage, view: int = 0, seed: int = 0) -> str:
    """Return the key of a view's features: of the image's content and box, above view 0 also of its random crop."""
    text = f"{digest}:{image.box}" + (f":{view}:{seed}:{image.image_id}" if view else "")
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class ShardedFeatures:
    """Features by `image_id` and view from the shards of one folder; `workers` are threads that hash files."""

    def __init__(self, folder: Path, num_views: int = 1, seed: int = 0, workers: int = 1) -> None:
        self.folder, self.num_views, self.seed, self.workers = folder, num_views, seed, max(workers, 1)
        self._keys: dict[tuple[str, int], str] = {}  # of all images that were added
        self._shards: dict[Path, Any] = {}  # open files
        self._shard_of: dict[str, Path] = {}  # key -> shard
        self._on_device: dict[str, Tensor] = {}  # key -> features that are kept in a device's memory

    def get(self, image_id: str, view: int = 0) -> Tensor:
        """Return the features (P,D) of a view; KeyError where no shard has them."""
        key = self._keys[image_id, view]
        if key in self._on_device:
            return self._on_device[key]
        return self._shards[self._shard_of[key]].get_tensor(key)

    def copy_to(self, device: torch.device) -> None:
        """Copy the features of all added images to the memory of a device, where `get` then finds them."""
        for key in sorted(set(self._keys.values()) & self._shard_of.keys() - self._on_device.keys()):
            self._on_device[key] = self._shards[self._shard_of[key]].get_tensor(key).to(device)

    def add_images(self, images: Sequence[CaptionedImage], views: int) -> list[View]:
        """Add images in views 0 to `views` - 1, hashing their files; return those that no shard has."""

        def digest(image: CaptionedImage) -> str:
            try:
                return content_digest(read_bytes(image.path, image.span))
            except UnreadableImage:
                return ""

        new = [image for image in images if (image.image_id, views - 1) not in self._keys]
        with ThreadPoolExecutor(self.workers) as pool:
            for image, found in zip(new, pool.map(digest, new), strict=True):
                for view in range(views):
                    self._keys[image.image_id, view] = found and feature_key(found, image, view, self.seed)
        for path in self.used_shards():
            with suppress(OSError):  # a cache may be read-only
                os.utime(path)  # what was not used for longest is pruned first
        return self.missing([(image, view) for view in range(views) for image in images])

    def missing(self, added: Sequence[View]) -> list[View]:
        """Return those of the added views that no shard has."""
        return [(image, view) for image, view in added if self._keys[image.image_id, view] not in self._shard_of]

    def used_shards(self) -> dict[Path, int]:
        """Return the shards that hold features of added images, and their sizes in bytes."""
        used = {self._shard_of[key] for key in self._keys.values() if key in self._shard_of}
        return {path: found.st_size for path, found in _our_files(self.folder).items() if path in used}

    def read_shards(self) -> None:
        """Open new shards; damaged ones are removed, to be written again. OSError where that fails."""
        files = sorted(path for path in _our_files(self.folder) if path.suffix != ".tmp")
        new = [path for path in files if path not in self._shards]
        with ThreadPoolExecutor(self.workers) as pool:
            for path, is_sound in zip(new, pool.map(_is_sound, new), strict=True):
                if is_sound:
                    self._shards[path] = safe_open(path, "pt")
                    self._shard_of |= dict.fromkeys(self._shards[path].keys(), path)
                else:
                    log.warning("%s is damaged and is written again", path)
                    path.unlink(missing_ok=True)

    def create(self) -> None:
        """Create the folder with its marker; OSError where that fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARKER).touch()

    def write_shard(self, features: Mapping[str, Tensor]) -> None:
        """Write key -> features (P,D), whole or not at all; OSError on a full disk."""
        if features:
            content = save(dict(features))
            name = hashlib.blake2b(content, digest_size=12).hexdigest()
            with atomic_write(self.folder / f"{name}.safetensors", "wb") as file:
                file.write(content)

    def prune(self, limit: float, keep_used: bool = True) -> None:
        """Remove shards, those unused for longest first, until all caches below the parent folder take `limit` bytes.

        Shards in use (with `keep_used`), foreign files and folders without our marker stay. OSError as `unlink`.
        """
        used = self.used_shards() if keep_used else {}
        markers = self.folder.parent.glob(f"*/{MARKER}")
        found = {path: stat for marker in markers for path, stat in _our_files(marker.parent).items()}
        total = sum(stat.st_size for stat in found.values())
        for path, stat in sorted(found.items(), key=lambda item: item[1].st_mtime):
            is_temporary = path.suffix == ".tmp"
            if time.time() - stat.st_mtime > STALE_SECONDS if is_temporary else total > limit and path not in used:
                path.unlink(missing_ok=True)
                total -= stat.st_size
                if self._shards.pop(path, None) is not None:
                    self._shard_of = {key: shard for key, shard in self._shard_of.items() if shard != path}


def _is_sound(path: Path) -> bool:
    with suppress(OSError):
        return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest() == path.stem
    return False


def _our_files(folder: Path) -> dict[Path, os.stat_result]:
    found = {}
    for path in folder.glob("*"):
        if OUR_FILE.fullmatch(path.name):
            with suppress(OSError):  # another run may remove it meanwhile
                found[path] = path.stat()
    return found
