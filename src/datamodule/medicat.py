"""MedicatDataModule: figures of open-access medical papers as train, val and test batches."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.readers.files import find_path
from src.datamodule.readers.medicat import CAPTION_FIELDS, read_medicat


class MedicatDataModule(CaptionDataModule):
    """Arguments of `read_medicat`, and `common` ones of `CaptionDataModule`."""

    def __init__(
        self,
        data_dir: str | Path,
        captions_file: str | Path | None = None,
        images_dir: str | Path | None = None,
        subcaptions_file: str | Path | None = None,
        subfigures_only: bool = False,
        radiology_only: bool = False,
        scope_only: bool = False,
        caption_fields: Sequence[str] = CAPTION_FIELDS,
        references: bool = False,
        strip_labels: bool = True,
        min_words: int = 1,
        **common: Any,
    ) -> None:
        reader = partial(
            read_medicat, data_dir, captions_file, images_dir, subcaptions_file, subfigures_only,
            radiology_only, scope_only, caption_fields, references, strip_labels, min_words,
        )  # fmt: skip
        super().__init__(reader, **common)
        self.data_dir = Path(data_dir).expanduser()

    def prepare_data(self) -> None:
        """Look for the folder; UserError, with the nearest name, without one."""
        find_path("data_dir", self.data_dir, is_dir=True)
