"""FlickrDataModule: Flickr8k and Flickr30k as train, val and test batches."""

from pathlib import Path
from typing import Any

from src.datamodule.caption_table import CaptionTable
from src.datamodule.folder import FolderDataModule
from src.datamodule.kaggle import download_flickr


class FlickrDataModule(FolderDataModule):
    """A folder that `download` (see `download_flickr`) fills where it is empty; else as FolderDataModule."""

    def __init__(self, data_dir: str | Path, *, download: bool | str = False, **settings: Any) -> None:
        super().__init__(data_dir, **settings)
        read = self.reader

        def download_and_read() -> CaptionTable:
            if download:
                download_flickr(data_dir, download)
            return read()

        self.reader = download_and_read
