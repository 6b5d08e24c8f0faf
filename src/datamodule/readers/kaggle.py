"""Fetch Flickr8k or Flickr30k from Kaggle into the data folder: `datamodule.download=true`.

What is on the way lies in `<data_dir>/.download/`; a later call goes on from there. The extra `kaggle` brings
the client (`kagglehub`); both data sets are public and need no account.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from src.datamodule.readers.encodings import printable
from src.datamodule.readers.flickr import find_images
from src.datamodule.readers.tables import read_records
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)

CACHE_VARIABLE = "KAGGLEHUB_CACHE"
PARTIAL = ".download"


@dataclass(frozen=True)
class Source:
    """A data set on Kaggle, and what a whole copy of it holds."""

    title: str
    handle: str
    pictures: int
    captions: int

    @property
    def page(self) -> str:
        """Where a person fetches it by hand."""
        return f"https://www.kaggle.com/datasets/{self.handle}"


SOURCES = {
    "flickr8k": Source("Flickr8k", "adityajn105/flickr8k", 8_091, 40_455),
    "flickr30k": Source("Flickr30k", "adityajn105/flickr30k", 31_783, 158_915),
}


def choose_source(data_dir: str | Path, which: bool | str) -> Source:
    """The data set that `datamodule.download` names; True goes by the folder's name, Flickr8k if in doubt.

    Raises:
        UserError: the name is of none that can be fetched.
    """
    if which is True:
        return SOURCES["flickr30k" if "30k" in Path(data_dir).name.lower() else "flickr8k"]
    if isinstance(which, str) and which in SOURCES:
        return SOURCES[which]
    raise UserError(
        f"datamodule.download={which!r}; expected true, false, {' or '.join(SOURCES)}; "
        "set datamodule.download=true"
    )


def missing(data_dir: Path, source: Source) -> str:
    """What a copy lacks of the whole data set, in words; "" where nothing is missing."""
    try:
        with os.scandir(find_images(data_dir, None)) as entries:
            pictures = sum(entry.name.lower().endswith(".jpg") for entry in entries)
        captions = len(read_records(data_dir / "captions.txt"))
    except (UserError, OSError) as error:
        return str(error).partition(";")[0]
    lacking = []
    if pictures < source.pictures:
        lacking.append(f"{pictures:,} of {source.pictures:,} pictures")
    if captions < source.captions:
        lacking.append(f"{captions:,} of {source.captions:,} captions")
    return " and ".join(lacking)


def download_flickr(data_dir: str | Path, which: bool | str = True) -> None:
    """Make sure that `data_dir` holds the whole data set: captions.txt and Images/.

    Returns at once where it does. Several processes may call this together; one of them fetches.

    Raises:
        UserError: the client is not installed, the server cannot be reached, the copy is not whole, or the
            folder already holds other data. The message says what to fetch by hand, and where to put it.
    """
    from filelock import FileLock

    source, folder = choose_source(data_dir, which), Path(data_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{PARTIAL}.lock"):
            if not missing(folder, source):
                return
            _refuse_other_data(folder, source)
            log.info("fetching %s from %s into %s", source.title, source.page, folder)
            _move_in(_fetch(folder, source), folder)
    except OSError as error:
        raise _by_hand(source, folder, f"{folder} cannot be written: {error.strerror or error}") from error
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    lacking = missing(folder, source)
    if lacking:
        raise _by_hand(source, folder, f"the copy has {lacking}")


def _refuse_other_data(folder: Path, source: Source) -> None:
    """Keep off a folder with captions or pictures that no unfinished download left there.

    Raises:
        UserError: it is such a folder.
    """
    if (folder / PARTIAL).is_dir():
        return
    other = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if other:
        raise UserError(
            f"datamodule.data_dir={printable(str(folder))!r} holds {printable(', '.join(other[:4]))} but not "
            f"all of {source.title} ({missing(folder, source)}); expected a new or empty folder; "
            "set another datamodule.data_dir, or datamodule.download=false to use what is there"
        )


def _fetch(folder: Path, source: Source) -> Path:
    """The folder into which the client has unpacked the data set; goes on while each try brings more bytes.

    Raises:
        UserError: the client is not installed, or a try failed and brought nothing new.
    """
    try:
        import kagglehub
    except ImportError as error:
        reason = "the package kagglehub is not installed: poetry install --extras kaggle"
        raise _by_hand(source, folder, reason) from error
    partial = folder / PARTIAL
    partial.mkdir(exist_ok=True)
    while True:
        before = _size(partial)
        try:
            with _cache_in(partial):
                return Path(kagglehub.dataset_download(source.handle))
        except OSError as error:  # no connection, a broken one, a full disk; all errors of requests
            size = _size(partial)
            if size <= before:
                if not size:
                    shutil.rmtree(partial)  # nothing to go on from
                raise _by_hand(source, folder, _reason(error)) from error
            log.warning("%s; going on from %d MB", _reason(error), size // 10**6)
        except Exception as error:  # no archive, or a damaged one: the client's own errors and zipfile's
            shutil.rmtree(partial)
            raise _by_hand(source, folder, _reason(error)) from error


def _move_in(unpacked: Path, folder: Path) -> None:
    """Move what was unpacked into the data folder, captions.txt last: a half-moved copy shows and can go on.

    Raises:
        FileExistsError: something of that name is there already; it is not touched.
    """
    for path in sorted(unpacked.iterdir(), key=lambda path: path.is_file()):
        target = folder / path.name
        if target.exists():
            raise FileExistsError(0, f"{path.name} is there already", str(target))
        path.replace(target)


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Point the client's cache at `folder`: on one disk with the data, so that nothing is copied."""
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[CACHE_VARIABLE]
        else:
            os.environ[CACHE_VARIABLE] = before


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _reason(error: Exception) -> str:
    """One short line for an error of the client."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"ConnectionError", "Timeout"}:
        return "no connection to the server"
    if "ChunkedEncodingError" in kinds:
        return "the connection broke"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0] if lines else type(error).__name__, 160)


def _by_hand(source: Source, folder: Path, reason: str) -> UserError:
    return UserError(
        f"datamodule.download: {source.title} was not fetched ({reason}); expected {source.captions:,} "
        f"captions of {source.pictures:,} pictures; run again to go on, or fetch {source.page} by hand "
        f"and put its captions.txt and Images/ into {printable(str(folder))!r}"
    )
