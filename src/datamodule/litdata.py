"""LitDataModule: train on shards that litdata streams from a disk or object storage; docs/formats.md has an example."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock
from torchvision.io import encode_png

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_dataset import CaptionDataset, tokenize_captions
from src.datamodule.caption_table import CaptionedImage, CaptionTable
from src.datamodule.collate import CaptionBatch, collate
from src.datamodule.images.decode import load_image, read_bytes
from src.datamodule.loader import read_ahead, record_unreadable
from src.datamodule.processor import Processor
from src.datamodule.readers.folder import read_folder
from src.utils.errors import UserError
from src.utils.files import atomic_write


def import_litdata() -> Any:
    """Return the package litdata; UserError where it is not installed."""
    try:
        import litdata
    except ModuleNotFoundError as error:
        raise UserError(f"datamodule=litdata: {error}; expected litdata; run: make setup EXTRAS=stream") from error
    return litdata


def write_shards(images: Sequence[CaptionedImage], out: str, **settings: Any) -> None:
    """Write images as shards into a folder or URL; settings: of `litdata.optimize`, as chunk_bytes, num_workers."""
    import_litdata().optimize(_make_sample, images, out, **{"chunk_bytes": "64MB"} | settings)


def _make_sample(image: CaptionedImage) -> dict[str, Any]:
    content = bytes(read_bytes(image.path, image.span))
    if image.box:  # a subfigure becomes an image of its own
        content = encode_png(load_image(image.path, image.box, image.span)).numpy().tobytes()
    return {"image_id": image.image_id, "image": content, "captions": "\n".join(image.captions)}


class LitDataModule(CaptionDataModule):
    """Batches of streamed train shards; val and test are copied into `cache_dir`, once, and served as other data.

    Samples: {"image_id": text, "image": bytes of an image file, "captions": text, one a line}. Shards are taken as
    never changed. UserError: litdata is not installed, or shards cannot be opened.
    """

    def __init__(
        self, train_dir: str | None, val_dir: str | None, test_dir: str | None, cache_dir: str | None, **common: Any
    ) -> None:
        if not cache_dir:  # a checkpoint's config names none: it may not choose where files are written
            raise UserError("datamodule.cache_dir=null; expected a folder; set datamodule.cache_dir=data/litdata")
        self.folders = {"train": train_dir, "val": val_dir, "test": test_dir}
        self.cache_dir = Path(cache_dir).expanduser()
        ratios = [(0, 1, 0), (0, 0.5, 0.5)][test_dir is not None] if val_dir else (0, 0, 1)  # the folders decide
        super().__init__(self._copy_val_and_test, **common | {"split_ratios": ratios})

    def num_images(self, split: str) -> int:
        """Return the images of a split, of all processes together."""
        return len(self.open_split(split)) if split == "train" and self.folders["train"] else super().num_images(split)

    def train_dataloader(self) -> "StreamedLoader":  # type: ignore[override]
        """Return train batches shuffled by seed and epoch, no image in two processes, which have equally many."""
        assert self.processor is not None
        return StreamedLoader(self, self.processor)

    def open_split(self, split: str, shared: bool = False) -> Any:
        """Return the StreamingDataset of a split: all of it in order, or shared among the processes and shuffled."""
        folder, package = str(self.folders[split]), import_litdata()
        cache = str(self.cache_dir / "chunks") if "://" in folder else None
        try:
            dataset = package.StreamingDataset(folder, cache_dir=cache, seed=self.seed, shuffle=shared)
            if not shared:
                dataset.distributed_env = type(dataset.distributed_env)(world_size=1, global_rank=0, num_nodes=1)
                dataset.set_drop_last(False)
            len(dataset)  # reads the index
        except Exception as error:  # each storage client has its own
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(f"datamodule.{split}_dir={folder!r} ({reason}); expected shards; write them") from error
        return dataset

    def _copy_val_and_test(self) -> CaptionTable:
        parts = {split: self.open_split(split) for split in ("val", "test") if self.folders[split]}
        key = repr([(self.folders[split], len(part)) for split, part in parts.items()])
        path = self.cache_dir / hashlib.sha256(key.encode()).hexdigest()[:24] / "images.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                rows = [{"split": split, **part[index]} for split, part in parts.items() for index in range(len(part))]
                for row in rows:
                    row["image"] = {"bytes": row["image"], "path": row.pop("image_id")}
                    row["captions"] = row["captions"].split("\n")
                with atomic_write(path, "wb") as file:
                    pd.DataFrame(rows).to_parquet(file, row_group_size=64)  # images that are read together
        return read_folder(path.parent, split_column="split")


class StreamedLoader:
    """Train batches of a LitDataModule, decoded ahead in threads; litdata keeps the position."""

    def __init__(self, data: LitDataModule, processor: Processor) -> None:
        self.data, self.processor, self.dataset = data, processor, data.open_split("train", shared=True)
        self.loader = import_litdata().StreamingDataLoader(self.dataset, batch_size=data.batch_size, collate_fn=list)
        self.num_batches = 0  # handed out in this epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[CaptionBatch]:
        epoch = self.loader.current_epoch + (not self.loader.restore)
        self.num_batches *= self.loader.restore
        try:
            keys = ((samples, epoch) for samples in self.loader)
            for batch in read_ahead(self._load_batch, keys, self.data.num_threads(pixels=True)):
                record_unreadable(batch.unreadable, self.data.unreadable)
                self.num_batches += 1
                yield batch
        finally:
            self.loader.restore = False  # else the epoch after one that `limit_train_batches` ends is resumed as well

    def _load_batch(self, key: tuple[list[dict[str, Any]], int]) -> CaptionBatch:
        (samples, epoch), data, processor = key, self.data, self.processor
        rows = ((row["image_id"], tuple(row["captions"].split("\n")), row["image"]) for row in samples)
        images = [CaptionedImage(name, name, texts, "", content=content) for name, texts, content in rows]
        tokens, _ = tokenize_captions(images, processor, processor.token_limit(data.max_caption_tokens))
        settings = (data.seed, data.captions_per_image, data.augment, None, data.max_megapixels)
        dataset = CaptionDataset(images, processor.image, tokens, True, *settings)
        items = [dataset[index, epoch] for index in range(len(images))]
        batch = collate(items, processor.image, processor.start_id, processor.eos_id, processor.pad_id)
        return batch.pin_memory() if data.pins_memory else batch

    def state_dict(self) -> dict[str, Any]:
        """Return litdata's state after the batches whose step is finished; more were read ahead."""
        finished, size = self.data.num_finished(), self.data.batch_size
        batches = self.num_batches if finished is None else min(finished, self.num_batches)
        state = {"dataset": self.dataset.state_dict(batches * size, 0, size), "num_samples_yielded": batches * size}
        return state | {"current_epoch": self.loader.current_epoch, "latest_worker_idx": 0, "batches": batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the position of `state_dict`, also on another number of processes."""
        self.loader.load_state_dict(state)
        self.num_batches = state["batches"]
