"""Cached features: the frozen backbone's output on disk, keyed by image content, read by memory map.

A shard is a safetensors file that maps a key to the features (P,D) of one image: P patches + class token, D width. Its
name is the hash of its bytes, so that damage shows.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
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
    """Features by `image_id` and view from the shards of one folder.

    num_views: views of each training image. seed: of their crops. workers: threads that hash files.
    """

    def __init__(self, folder: Path, num_views: int = 1, seed: int = 0, workers: int = 1) -> None:
        self.folder, self.num_views, self.seed, self.workers = folder, num_views, seed, max(workers, 1)
        self._keys: dict[tuple[str, int], str] = {}  # of all images that were added
        self._shards: dict[Path, Any] = {}  # open files
        self._shard_of: dict[str, Path] = {}  # key -> shard
        self._sound: set[Path] = set()

    def get(self, image_id: str, view: int = 0) -> Tensor:
        """Return the features (P,D) of a view; KeyError where no shard has them."""
        key = self._keys[image_id, view]
        return self._shards[self._shard_of[key]].get_tensor(key)

    def add_images(self, images: Sequence[CaptionedImage], views: int) -> list[View]:
        """Add images in views 0 to `views` - 1, hashing their files; return those that no sound shard has."""

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
        return self.missing([(image, view) for view in range(views) for image in images])

    def missing(self, wanted: Iterable[View]) -> list[View]:
        """Return those of the added views that no sound shard has; damaged shards are removed."""
        keys = [(view, self._keys[view[0].image_id, view[1]]) for view in wanted]
        unchecked = sorted({self._shard_of[key] for _, key in keys if key in self._shard_of} - self._sound)
        with ThreadPoolExecutor(self.workers) as pool:
            for path, sound in zip(unchecked, pool.map(_is_sound, unchecked), strict=True):
                if sound:
                    self._sound.add(path)
                    with suppress(OSError):  # a cache may be read-only
                        os.utime(path)  # what was not used for longest is pruned first
                else:
                    log.warning("%s is damaged and is written again", path)
                    self._remove(path)
        return [view for view, key in keys if key not in self._shard_of]

    def read_shards(self) -> None:
        """Open new shards; unreadable ones are removed, to be written again. OSError where that fails."""
        for path in sorted(_our_files(self.folder)):
            if path in self._shards or path.suffix == ".tmp":
                continue
            try:
                self._shards[path] = safe_open(path, "pt")
                self._shard_of.update(dict.fromkeys(self._shards[path].keys(), path))
            except (SafetensorError, OSError):
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

    def used_bytes(self) -> int:
        """Return the bytes on disk of the shards that hold features of added images."""
        used = self._used()
        return sum(found.st_size for path, found in _our_files(self.folder).items() if path in used)

    def prune(self, limit: float, keep_used: bool = True) -> None:
        """Remove what was not used for longest until all caches below the parent folder take `limit` bytes.

        Removed are other marked folders as a whole and shards of this one; those that hold features of added images
        only without `keep_used`. Foreign files stay. OSError where a file cannot be removed.
        """
        units = []
        for folder in {marker.parent for marker in self.folder.parent.glob(f"*/{MARKER}")}:
            files = _our_files(folder)
            for path in [path for path in files if path.suffix == ".tmp"]:
                if time.time() - files.pop(path).st_mtime > STALE_SECONDS:
                    path.unlink(missing_ok=True)
            units += [{path: files[path]} for path in files] if folder == self.folder else [files]
        used = self._used() if keep_used else set()
        total = sum(found.st_size for files in units for found in files.values())
        for files in sorted(units, key=lambda files: max((f.st_mtime for f in files.values()), default=0)):
            if total <= limit:
                return
            if used.isdisjoint(files):
                total -= sum(found.st_size for found in files.values())
                for path in files:
                    self._remove(path)
                for folder in {path.parent for path in files} - {self.folder}:
                    log.info("removed the feature cache %s, unused for longest", folder)
                    with suppress(OSError):  # it holds foreign files
                        (folder / MARKER).unlink()
                        folder.rmdir()

    def _used(self) -> set[Path]:
        return {self._shard_of[key] for key in self._keys.values() if key in self._shard_of}

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if self._shards.pop(path, None) is not None:
            self._shard_of = {key: shard for key, shard in self._shard_of.items() if shard != path}


def _is_sound(path: Path) -> bool:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest() == path.stem
    except OSError:
        return False


def _our_files(folder: Path) -> dict[Path, os.stat_result]:
    found = {}
    for path in folder.glob("*"):
        if OUR_FILE.fullmatch(path.name):
            with suppress(OSError):  # another run may remove it meanwhile
                found[path] = path.stat()
    return found
