"""Download Flickr8k or Flickr30k from Kaggle into the data folder; `<data_dir>/.download/` resumes a download."""

import os
import shutil
from pathlib import Path

from filelock import FileLock

from src.datamodule.readers.files import printable
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

HANDLES = {"flickr8k": "adityajn105/flickr8k", "flickr30k": "adityajn105/flickr30k"}


def download_flickr(data_dir: str | Path, which: bool | str = True) -> None:
    """Make sure that `data_dir` holds captions.txt and Images/ of "flickr8k" or "flickr30k"; True: by folder name.

    UserError where the client is not installed, the download fails, or the folder holds other data.
    """
    folder = Path(data_dir).expanduser()
    name = which if isinstance(which, str) else "flickr30k" if "30k" in folder.name.lower() else "flickr8k"
    if name not in HANDLES:
        raise UserError(
            f"datamodule.download={which!r}; expected true, false, {' or '.join(HANDLES)}; set datamodule.download=true"
        )
    page, partial = f"https://www.kaggle.com/datasets/{HANDLES[name]}", folder / ".download"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{partial}.lock"):
            if (folder / "captions.txt").is_file():
                return
            others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
            if others and not partial.is_dir():
                raise UserError(
                    f"datamodule.data_dir={str(folder)!r} holds {printable(', '.join(others[:4]))} but no "
                    "captions.txt; expected a new or empty folder; set another one, or datamodule.download=false"
                )
            log.info("downloading %s from %s into %s", name, page, folder)
            import kagglehub

            os.environ["KAGGLEHUB_CACHE"] = str(partial)
            unpacked = Path(kagglehub.dataset_download(HANDLES[name]))
            for path in sorted(unpacked.iterdir(), key=lambda path: path.is_file()):  # captions.txt last
                if (folder / path.name).exists():
                    raise FileExistsError(f"{path.name} is there already")
                path.rename(folder / path.name)
            shutil.rmtree(partial)
    except UserError:
        raise
    except Exception as error:  # no client, no connection, a full disk, no archive: errors of four packages
        if not isinstance(error, OSError | ImportError):  # of a damaged archive, which must not be resumed
            shutil.rmtree(partial, ignore_errors=True)
        problem = printable(f"{type(error).__name__}: {error}".splitlines()[0], 160)
        if isinstance(error, ImportError):
            problem = "the package kagglehub is not installed: poetry install --extras kaggle"
        raise UserError(
            f"datamodule.download: {name} was not downloaded ({problem}); expected a connection and a writable folder; "
            f"run again to resume, or put captions.txt and Images/ of {page} into {str(folder)!r}"
        ) from error
