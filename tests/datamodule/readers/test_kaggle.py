"""Fetching from Kaggle, against a server on loopback that imitates it: whole, cut off, resumed, absent."""

import io
import json
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.datamodule.readers import kaggle as download
from src.datamodule.readers.flickr import read_flickr
from src.datamodule.readers.kaggle import Source, choose_source, download_flickr, missing
from src.utils.errors import UserError

NUM_PICTURES = 6


def archive() -> bytes:
    """A small Flickr folder as Kaggle zips it; 3 MB, as the client keeps whole megabytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        names = [f"{number}.jpg" for number in range(NUM_PICTURES)]
        for number, name in enumerate(names):
            file.writestr(f"Images/{name}", bytes([number]) * 500_000)
        file.writestr("captions.txt", "image,caption\n" + "".join(f"{name},A dog .\n" for name in names))
    return content.getvalue()


class Kaggle(ThreadingHTTPServer):
    """Answers as the data set service does; `cuts` are the byte counts after which replies break off."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content = content
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.daemon_threads = True


class Answer(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("GetDataset"):
            body = json.dumps({"currentVersionNumber": 1}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/archive.zip")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.server.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[:cut])


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kaggle]:
    from kagglesdk import kaggle_env

    source = Source("Flickr8k", "someone/flickr8k", NUM_PICTURES, NUM_PICTURES)
    monkeypatch.setitem(download.SOURCES, "flickr8k", source)
    with Kaggle(archive()) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, endpoint)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_is_read_like_any_folder_and_made_once(kaggle: Kaggle, tmp_path: Path) -> None:
    root = tmp_path / "data" / "flickr8k"
    download_flickr(root)
    assert len(read_flickr(root).images) == NUM_PICTURES
    assert sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock")) == [
        "Images",
        "captions.txt",
    ]
    requests = len(kaggle.ranges)
    download_flickr(root)
    assert len(kaggle.ranges) == requests


def test_a_broken_connection_goes_on_where_it_broke(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.cuts = [1_500_000]
    download_flickr(tmp_path / "flickr8k")
    assert (tmp_path / "flickr8k" / "Images" / "5.jpg").read_bytes() == bytes([5]) * 500_000
    assert "bytes=1048576-" in kaggle.ranges


def test_a_download_given_up_goes_on_in_the_next_run(kaggle: Kaggle, tmp_path: Path) -> None:
    root = tmp_path / "flickr8k"
    # The 2nd try asks twice: first for the whole, of which it takes the head only, then for the rest.
    kaggle.cuts = [1_500_000, 0, 0]
    with pytest.raises(
        UserError, match=r"Flickr8k was not fetched \(the connection broke\).*run again to go on.*by hand"
    ):
        download_flickr(root)
    assert (root / ".download").is_dir()
    kaggle.cuts = []
    download_flickr(root)
    assert missing(root, choose_source(root, True)) == ""
    assert "bytes=1048576-" in kaggle.ranges
    assert not (root / ".download").exists()


def test_a_move_that_was_interrupted_goes_on(kaggle: Kaggle, tmp_path: Path) -> None:
    root = tmp_path / "flickr8k"
    unpacked = download._fetch(_made(root), choose_source(root, True))
    (unpacked / "Images").replace(root / "Images")
    download_flickr(root)
    assert len(read_flickr(root).images) == NUM_PICTURES


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_no_server_gives_one_line_and_leaves_nothing(
    kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, "http://127.0.0.1:1")
    with pytest.raises(UserError, match="no connection to the server") as caught:
        download_flickr(tmp_path / "flickr8k")
    for part in ("https://www.kaggle.com/datasets/someone/flickr8k", str(tmp_path / "flickr8k"), "Images/"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "flickr8k").iterdir()] in ([], [".download.lock"])


def test_what_is_no_archive_is_refused(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.content = b"<html>Sign in</html>"
    with pytest.raises(UserError, match="Unsupported archive type"):
        download_flickr(tmp_path / "flickr8k")
    kaggle.content = archive()
    download_flickr(tmp_path / "flickr8k")


def test_a_copy_that_is_not_whole_is_refused(
    kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(download.SOURCES, "flickr8k", Source("Flickr8k", "someone/flickr8k", 7, 8))
    with pytest.raises(UserError, match=r"the copy has 6 of 7 pictures and 6 of 8 captions"):
        download_flickr(tmp_path / "flickr8k")


def test_other_data_is_not_touched(kaggle: Kaggle, tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images" / "mine.jpg").touch()
    (tmp_path / "captions.txt").write_text("image,caption\nmine.jpg,Mine\n")
    with pytest.raises(UserError, match=r"holds Images, captions\.txt but not all of Flickr8k \(1 of 6 pict"):
        download_flickr(tmp_path)
    (tmp_path / ".download").mkdir()
    with pytest.raises(UserError, match="is there already"):
        download_flickr(tmp_path)
    assert (tmp_path / "captions.txt").read_text() == "image,caption\nmine.jpg,Mine\n"
    assert (tmp_path / "Images" / "mine.jpg").exists()


def test_the_client_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match="kagglehub is not installed: poetry install --extras kaggle"):
        download_flickr(tmp_path / "flickr8k")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        download_flickr(tmp_path / "file" / "flickr8k")


def test_the_data_set_goes_by_name() -> None:
    assert choose_source("data/flickr8k", True).title == "Flickr8k"
    assert choose_source("data/Flickr30k", True).title == "Flickr30k"
    assert choose_source("data/mine", "flickr30k").title == "Flickr30k"
    for which in ("coco", 1.5):
        with pytest.raises(UserError, match="expected true, false, flickr8k or flickr30k"):
            choose_source("data", which)  # type: ignore[arg-type]


def test_the_clients_settings_are_left_as_they_were(
    kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(download.CACHE_VARIABLE, "mine")
    download_flickr(tmp_path / "flickr8k")
    assert os.environ[download.CACHE_VARIABLE] == "mine"
