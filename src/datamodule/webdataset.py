"""WebDatasetDataModule: tar shards as train, val and test batches."""

from functools import partial
from pathlib import Path
from typing import Any

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.readers.shards import read_shards


class WebDatasetDataModule(CaptionDataModule):
    """Arguments of `read_shards`, and `common` ones of `CaptionDataModule`."""

    def __init__(
        self,
        data_dir: str | Path,
        train_shards: str | None = None,
        val_shards: str | None = None,
        test_shards: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(partial(read_shards, data_dir, train_shards, val_shards, test_shards), **common)
        self.data_dir = Path(data_dir).expanduser()
