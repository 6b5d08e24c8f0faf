"""Data sets that are drawn on first use and then read by the ordinary readers: no download needed."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.datamodule.flickr import FlickrDataModule
from src.datamodule.medicat import MedicatDataModule
from src.demo.synthetic.medical import write_phantoms
from src.demo.synthetic.scenes import write_scenes
from src.utils.logging import get_logger

log = get_logger(__name__)


class SyntheticFlickrDataModule(FlickrDataModule):
    """Drawn scenes in Flickr8k's layout.

    style, num_images, drawing_seed, picture_size: see `write_scenes`; the folder's name should hold them,
    since a folder that is there is not drawn again. common: the arguments of `FlickrDataModule`.
    """

    def __init__(
        self,
        data_dir: str | Path,
        style: str,
        num_images: int,
        drawing_seed: int = 0,
        picture_size: int = 192,
        **common: Any,
    ) -> None:
        super().__init__(data_dir, **common)
        self.style, self.num_images = style, num_images
        self.drawing_seed, self.picture_size = drawing_seed, picture_size

    def prepare_data(self) -> None:
        """Draw the set unless it is there."""

        def draw(folder: Path) -> None:
            write_scenes(folder, self.num_images, self.style, self.drawing_seed, self.picture_size)

        draw_once(self.data_dir, draw, f"{self.num_images} scenes")


class SyntheticMedicalDataModule(MedicatDataModule):
    """Drawn medical figures in MedICaT's layout.

    num_images, drawing_seed, picture_size: see `write_phantoms`; the folder's name should hold them. common:
    the arguments of `MedicatDataModule`.
    """

    def __init__(
        self,
        data_dir: str | Path,
        num_images: int,
        drawing_seed: int = 0,
        picture_size: int = 192,
        **common: Any,
    ) -> None:
        super().__init__(data_dir, **common)
        self.num_images, self.drawing_seed, self.picture_size = num_images, drawing_seed, picture_size

    def prepare_data(self) -> None:
        """Draw the set unless it is there."""

        def draw(folder: Path) -> None:
            write_phantoms(folder, self.num_images, self.drawing_seed, self.picture_size)

        draw_once(self.data_dir, draw, f"{self.num_images} medical figures")


def draw_once(data_dir: Path, draw: Callable[[Path], None], what: str) -> None:
    """Call `draw` on a temporary folder beside `data_dir` and rename it when all is drawn."""
    if data_dir.is_dir():
        return
    log.info("drawing %s into %s", what, data_dir)
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=data_dir.parent, prefix=f".{data_dir.name}."))
    try:
        draw(folder)
        folder.chmod(0o755)
        folder.rename(data_dir)
    except OSError:
        if not data_dir.is_dir():  # another process was not faster: a real fault
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
