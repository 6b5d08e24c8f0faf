"""Downloading from Kaggle, with the client's one function replaced by a local archive."""

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from src.datamodule.flickr import FlickrDataModule
from src.datamodule.kaggle import download_flickr
from src.datamodule.readers.folder import read_folder
from src.utils.errors import UserError


def unpack(handle: str) -> str:
    """Put a small Flickr folder into the cache, as `kagglehub.dataset_download` does."""
    folder = Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets" / handle / "versions" / "1"
    (folder / "Images").mkdir(parents=True)
    for number in range(3):
        (folder / "Images" / f"{number}.jpg").touch()
    (folder / "captions.txt").write_text("image,caption\n0.jpg,A dog\n1.jpg,A cat\n2.jpg,A bird\n")
    return str(folder)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str]], list[str]]:
    """Replace the client by a function of the handle; returns the list of the handles that are requested."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", "restored after the test")

    def install(download: Callable[[str], str]) -> list[str]:
        handles: list[str] = []
        module = types.ModuleType("kagglehub")
        module.dataset_download = lambda handle: handles.append(handle) or download(handle)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "kagglehub", module)
        return handles

    return install


def test_a_download_is_read_like_any_folder_and_made_once(client, tmp_path: Path) -> None:
    handles = client(unpack)
    for _ in range(2):
        download_flickr(tmp_path / "data" / "Flickr30k")
    assert handles == ["adityajn105/flickr30k"]
    assert len(read_folder(tmp_path / "data" / "Flickr30k").images) == 3
    names = {path.name for path in (tmp_path / "data" / "Flickr30k").iterdir()}
    assert names - {".download.lock"} == {"Images", "captions.txt"}


@pytest.mark.parametrize(
    ("error", "resumes"), [(ConnectionError("no route"), True), (ValueError("Unsupported archive type"), False)]
)
def test_a_failed_download_is_one_line_and_resumes_unless_damaged(
    client, tmp_path: Path, error: Exception, resumes: bool
) -> None:
    def fail(handle: str) -> str:
        Path(os.environ["KAGGLEHUB_CACHE"]).mkdir()
        (Path(os.environ["KAGGLEHUB_CACHE"]) / "1.archive").touch()
        raise error

    client(fail)
    root = tmp_path / "flickr8k"
    with pytest.raises(UserError, match=rf"flickr8k was not downloaded \(.*{error}\)") as caught:
        download_flickr(root)
    for word in ("https://www.kaggle.com/datasets/adityajn105/flickr8k", str(root), "Images/"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (root / ".download" / "1.archive").exists() == resumes
    client(unpack)
    download_flickr(root, "flickr8k")
    assert len(read_folder(root).images) == 3
    assert not (root / ".download").exists()


def test_other_data_is_not_touched(client, tmp_path: Path) -> None:
    handles = client(unpack)
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images" / "mine.jpg").touch()
    with pytest.raises(UserError, match=r"holds Images but no captions\.txt"):
        download_flickr(tmp_path)
    assert handles == []
    (tmp_path / ".download").mkdir()
    with pytest.raises(UserError, match="Images is there already"):
        download_flickr(tmp_path)
    assert [path.name for path in (tmp_path / "Images").iterdir()] == ["mine.jpg"]


def test_the_client_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match="kagglehub is not installed: poetry install --extras kaggle"):
        download_flickr(tmp_path / "flickr8k")


def test_the_data_module_downloads_before_it_reads(client, tmp_path: Path) -> None:
    handles = client(unpack)
    data = FlickrDataModule(tmp_path / "data", download="flickr30k", check_images=False)
    data.setup()
    assert (handles, len(data.table.images)) == (["adityajn105/flickr30k"], 3)
