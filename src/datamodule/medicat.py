"""MedICaT as a data module; `medicat_index.py` reads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.datamodule.caption_datamodule import CaptionDataModule
from src.datamodule.caption_table import CaptionTable
from src.datamodule.readers.figure_captions import CAPTION_FIELDS, FigureFilter
from src.datamodule.readers.medicat import read_medicat


class MedicatDataModule(CaptionDataModule):
    """The MedICaT release, or drawn figures in its layout.

    captions_file, images_dir, subcaptions_file, subfigures_only: see `read_medicat`.
    radiology_only, scope_only, caption_fields, strip_labels, min_words: see `FigureFilter`.
    generation_length: tokens to generate; captions of figures are longer than those of photographs.
    common: the arguments of `CaptionDataModule`.

    Raises:
        UserError: as `FigureFilter` and `CaptionDataModule`.
    """

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
        strip_labels: bool = True,
        min_words: int = 1,
        generation_length: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(data_dir, **common)
        self.captions_file = captions_file
        self.images_dir = images_dir
        self.subcaptions_file = subcaptions_file
        self.subfigures_only = subfigures_only
        if not isinstance(caption_fields, str):
            caption_fields = tuple(caption_fields)  # a list of OmegaConf is slow to walk 217,060 times
        self.choose = FigureFilter(radiology_only, scope_only, caption_fields, strip_labels, min_words)
        self.generation_length = generation_length

    def read_table(self) -> CaptionTable:
        """See `read_medicat`."""
        return read_medicat(
            self.data_dir,
            self.captions_file,
            self.images_dir,
            self.subcaptions_file,
            self.subfigures_only,
            self.choose,
        )
