"""The frozen backbone is run once per image, kept on disk, and every epoch after starts behind it."""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from torch import Tensor

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionedImage
from src.datamodule.feature_store import SHARD_IMAGES, ShardedFeatures, clean_caches, feature_bytes
from src.models.vit_gpt2 import VitGpt2
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
PARTS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
Wanted = tuple[CaptionedImage, int]  # an image and the number of its view


class FeatureCache(Callback):
    """Fills `datamodule.features` before the loaders are made.

    cache_dir: one folder per backbone, preprocessing, precision and crop seed is made in it, and used again by every
    run that agrees in these.
    dtype: "bf16", "fp32", or "auto" for that of the run.
    views: views of each training image, the picture itself and random crops of it; one is drawn per epoch.
    size_limit_gb: of `cache_dir`; a larger cache is not built, and older ones are removed to stay below.

    Without a frozen backbone, with `datamodule.augment`, and where the disk has no room, pixels are read instead, which one
    line says.
    """

    def __init__(
        self,
        cache_dir: str,
        enabled: bool = True,
        dtype: str = "auto",
        views: int = 1,
        size_limit_gb: float | None = 100.0,
    ) -> None:
        """Raises UserError for an unknown dtype or a number of views under 1."""
        if dtype not in ("auto", *DTYPES) or views < 1:
            raise UserError(
                f"callbacks.feature_cache dtype={dtype!r}, views={views}; expected auto, bf16 or fp32, and 1 or more; "
                "set callbacks.feature_cache.dtype=auto"
            )
        self.cache_dir, self.enabled = Path(cache_dir), enabled
        self.dtype, self.views, self.size_limit_gb = dtype, views, size_limit_gb

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compute what is missing for the parts of the data that `stage` reads."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not self._serves(data, pl_module) or stage not in PARTS:
            return
        assert isinstance(pl_module, VitGpt2)
        store = self._open(trainer, data, pl_module)
        store.read_shards()
        missing: list[Wanted] = []
        for part in PARTS[stage]:
            missing += store.add_images(data.splits[part], self.views if part == "train" else 1)
        trainer.strategy.barrier(
            "feature_cache"
        )  # all have seen the same shards before anyone writes another
        data.features = store if self._fill(trainer, data, pl_module, store, missing) else None
        if data.features is not None:
            pl_module.captioner.page_out_backbone()

    def _fill(
        self,
        trainer: Trainer,
        data: CaptionDataModule,
        module: VitGpt2,
        store: ShardedFeatures,
        missing: list[Wanted],
    ) -> bool:
        """Write what is missing; False, in all processes, where one of them finds no room for its share.

        All processes share the images. What a process lacks then lies on the disk of another machine, and the
        processes of its machine share that.
        """
        shares = [(trainer.global_rank, trainer.world_size)]
        if trainer.num_nodes > 1:
            shares.append((trainer.local_rank, trainer.world_size // trainer.num_nodes))
        for share in shares:
            try:
                done = not missing or self._build(trainer, data, module, store, missing, share)
            except OSError as error:
                reason = error.strerror or error
                log.warning("the feature cache cannot be written (%s); pixels are read instead", reason)
                done = False
            if not trainer.strategy.reduce_boolean_decision(done):
                return False
            store.read_shards()
            missing = store.lacking(missing)
        return True

    def _serves(self, data: Any, module: LightningModule) -> bool:
        if not self.enabled or not isinstance(data, CaptionDataModule) or not isinstance(module, VitGpt2):
            return False
        if not module.captioner.depth or not data.cacheable:
            return False
        if data.augment:
            log.info(
                "datamodule.augment=true: no feature cache, pixels are read; callbacks.feature_cache.views=4 has both"
            )
            return False
        return True

    def _open(self, trainer: Trainer, data: CaptionDataModule, module: VitGpt2) -> ShardedFeatures:
        dtype = self._dtype(trainer)
        text = f"{module.backbone_fingerprint()}:{dtype}:{data.seed if self.views > 1 else ''}"
        folder = self.cache_dir / hashlib.sha256(text.encode()).hexdigest()[:24]
        if isinstance(data.features, ShardedFeatures) and data.features.folder == folder:
            return data.features
        return ShardedFeatures(folder, self.views)

    def _dtype(self, trainer: Trainer) -> torch.dtype:
        if self.dtype == "auto":
            return torch.bfloat16 if str(trainer.precision).startswith("bf16") else torch.float32
        return DTYPES[self.dtype]

    def _build(
        self,
        trainer: Trainer,
        data: CaptionDataModule,
        module: VitGpt2,
        store: ShardedFeatures,
        missing: list[Wanted],
        share: tuple[int, int],
    ) -> bool:
        """Write the missing shards, every n-th from one on for a `share` of (one, n); False where there is no room."""
        dtype = self._dtype(trainer)
        store.folder.mkdir(parents=True, exist_ok=True)
        image = module.preprocessing.image
        device = trainer.strategy.root_device
        module.to(device)
        shape = backbone_shape(module, image.height, image.width)
        size = feature_bytes(shape, dtype, len(missing))
        if not self._has_room(store.folder, size):
            return False
        store.folder.touch()
        if trainer.is_global_zero and self.size_limit_gb is not None:
            clean_caches(self.cache_dir, store.folder, self.size_limit_gb * 1e9 - size)
        log.info("feature cache: %s images, %.2f GB in %s", f"{len(missing):,}", size / 1e9, store.folder)
        shards = [missing[start : start + SHARD_IMAGES] for start in range(0, len(missing), SHARD_IMAGES)]
        mine = shards[share[0] :: share[1]]
        for shard in progress(mine, trainer):
            names, features = self._features(trainer, data, module, shard, dtype)
            kept = [(image, view) for image, view in shard if image.image_id in names]
            if kept:
                store.write_shard(kept, features)
        return True

    def _has_room(self, folder: Path, size: int) -> bool:
        free = shutil.disk_usage(folder).free
        if size > 0.95 * free:
            log.warning(
                "the feature cache needs %.2f GB and %s has %.2f free: pixels are read instead",
                size / 1e9,
                folder,
                free / 1e9,
            )
            return False
        if self.size_limit_gb is not None and size > self.size_limit_gb * 1e9:
            log.warning(
                "the feature cache needs %.2f GB, over size_limit_gb=%s: pixels are read instead",
                size / 1e9,
                self.size_limit_gb,
            )
            return False
        return True

    @torch.no_grad()
    def _features(
        self,
        trainer: Trainer,
        data: CaptionDataModule,
        module: VitGpt2,
        shard: Sequence[Wanted],
        dtype: torch.dtype,
    ) -> tuple[set[str], Tensor]:
        """Names of the images of a shard that could be read, and their features (N,P,D) on the CPU."""
        names: list[str] = []
        parts: list[Tensor] = []
        context = trainer.precision_plugin.forward_context if dtype != torch.float32 else nullcontext
        for view in sorted({view for _, view in shard}):
            images = [image for image, number in shard if number == view]
            for batch in data.pixel_loader(images, view):
                if len(batch):
                    pixels = batch.to(module.device).pixel_values
                    assert pixels is not None
                    with context():
                        features = module.captioner.backbone_features(pixels)
                    names += batch.image_ids
                    parts.append(features.to("cpu", dtype))
        return set(names), torch.cat(parts) if parts else torch.empty(0)


@torch.no_grad()
def backbone_shape(module: VitGpt2, height: int, width: int) -> tuple[int, int]:
    """(P,D) of the backbone's output for a picture of height x width pixels."""
    features = module.captioner.backbone_features(torch.zeros(1, 3, height, width, device=module.device))
    return features.shape[1], features.shape[2]


class ImagesPerSecond(ProgressColumn):
    """Images of finished shards per second."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        return Text(f"{task.speed * SHARD_IMAGES:.0f} images/s" if task.speed else "")


def progress(shards: Sequence[Any], trainer: Trainer) -> Iterable[Any]:
    """The shards one after another, with a bar where the trainer shows bars."""
    if not trainer.is_global_zero or trainer.progress_bar_callback is None:
        yield from shards
        return
    columns = (
        TextColumn("Feature cache"),
        BarColumn(),
        MofNCompleteColumn(),
        ImagesPerSecond(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        yield from bar.track(shards)
