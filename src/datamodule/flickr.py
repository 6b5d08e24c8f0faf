"""FlickrDataModule: Flickr8k and Flickr30k as train, val and test batches."""

from pathlib import Path
from typing import Any

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionTable
from src.datamodule.readers.flickr import read_flickr
from src.datamodule.readers.kaggle import download_flickr


class FlickrDataModule(CaptionDataModule):
    """Arguments of `read_flickr`, `download` (see `download_flickr`), and `common` ones of `CaptionDataModule`."""

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
        def read() -> CaptionTable:
            if download:
                download_flickr(data_dir, download)
            return read_flickr(data_dir, captions_file, images_dir, karpathy_json, official_split)

        super().__init__(read, **common)
        self.data_dir = Path(data_dir).expanduser()
