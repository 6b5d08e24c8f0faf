"""FolderDataModule: a folder of captioned images in any usual layout as train, val and test batches."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.readers.files import find_path
from src.datamodule.readers.folder import read_folder


class FolderDataModule(CaptionDataModule):
    """Arguments of `read_folder`, and `common` ones of `CaptionDataModule`."""

    def __init__(
        self,
        data_dir: str | Path,
        captions_file: str | Path | None = None,
        images_dir: str | Path | None = None,
        image_column: str | None = None,
        caption_columns: str | Sequence[str] | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        karpathy_json: str | Path | None = None,
        official_split: bool = True,
        **common: Any,
    ) -> None:
        reader = partial(
            read_folder, data_dir, captions_file, images_dir, image_column, caption_columns, split_column, group_column,
            karpathy_json, official_split,
        )  # fmt: skip
        super().__init__(reader, **common)
        self.data_dir = Path(data_dir).expanduser()

    def prepare_data(self) -> None:
        """Look for the folder; UserError, with the nearest name, without one."""
        find_path("data_dir", self.data_dir, is_dir=True)
