"""FlickrDataModule: Flickr8k and Flickr30k as train, val and test batches; Kaggle has them."""

from pathlib import Path
from typing import Any

from src.datamodule.folder import FolderDataModule
from src.utils.errors import UserError
from src.utils.files import create_folder_once

HANDLES = {"flickr8k": "adityajn105/flickr8k", "flickr30k": "adityajn105/flickr30k"}


class FlickrDataModule(FolderDataModule):
    """A folder that `download` fills where it does not exist or is empty; `settings` as for FolderDataModule.

    download: "flickr8k", "flickr30k", or True, which chooses by the folder's name.
    """

    def __init__(self, data_dir: str | Path, *, download: bool | str = False, **settings: Any) -> None:
        super().__init__(data_dir, **settings)
        self.download = download

    def prepare_data(self) -> None:
        """Download captions.txt and Images/ from Kaggle; UserError where that fails."""
        if not self.download:
            return super().prepare_data()
        by_folder = "flickr30k" if "30k" in self.data_dir.name.lower() else "flickr8k"
        name = self.download if isinstance(self.download, str) else by_folder
        if name not in HANDLES:
            problem = f"datamodule.download={name!r}; expected true, false, {' or '.join(HANDLES)}"
            raise UserError(f"{problem}; set datamodule.download=true")
        create_folder_once(self.data_dir, lambda folder: download_flickr(HANDLES[name], folder))


def download_flickr(handle: str, folder: Path) -> None:
    """Download a data set of Kaggle into a new folder; UserError without the client or a connection."""
    try:
        import kagglehub

        kagglehub.dataset_download(handle, output_dir=str(folder))
    except Exception as error:  # no client, no connection, a full disk, no archive: errors of four packages
        problem = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        if isinstance(error, ImportError):
            problem = "the package kagglehub is not installed: poetry install --extras kaggle"
        page = f"https://www.kaggle.com/datasets/{handle}"
        raise UserError(
            f"datamodule.download: {handle} was not downloaded ({problem}); expected a connection and a writable "
            f"folder; run again, or put captions.txt and Images/ of {page} into datamodule.data_dir"
        ) from error
