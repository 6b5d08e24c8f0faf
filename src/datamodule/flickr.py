"""Flickr8k and Flickr30k as a data module; `flickr_index.py` reads them, `download.py` fetches them."""

from pathlib import Path
from typing import Any

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionTable
from src.datamodule.readers.flickr import read_flickr
from src.datamodule.readers.kaggle import download_flickr


class FlickrDataModule(CaptionDataModule):
    """Flickr8k, Flickr30k and every folder in one of their layouts.

    captions_file, images_dir, karpathy_json, official_split: see `read_flickr`.
    download: True fetches Flickr8k (Flickr30k where `data_dir` is named so) from Kaggle into `data_dir`
        unless it lies there; "flickr8k" or "flickr30k" names it.
    common: the arguments of `CaptionDataModule`.
    """

    def __init__(
        self,
        data_dir: str | Path,
        captions_file: str | Path | None = None,
        images_dir: str | Path | None = None,
        karpathy_json: str | Path | None = None,
        official_split: bool = True,
        download: bool | str = False,
        **common: Any,
    ) -> None:
        super().__init__(data_dir, **common)
        self.captions_file = captions_file
        self.images_dir = images_dir
        self.karpathy_json = karpathy_json
        self.official_split = official_split
        self.download = download

    def read_table(self) -> CaptionTable:
        """See `download_flickr` and `read_flickr`."""
        if self.download:
            download_flickr(self.data_dir, self.download)
        return read_flickr(
            self.data_dir, self.captions_file, self.images_dir, self.karpathy_json, self.official_split
        )
