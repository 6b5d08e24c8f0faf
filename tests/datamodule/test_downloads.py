"""Data sets of Kaggle and of the hub become local folders: once, whole or not at all."""

import sys
import types
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from src.datamodule import hub
from src.datamodule.flickr import FlickrDataModule
from src.datamodule.hub import HubDataModule
from src.utils.errors import UserError
from tests.datamodule.layouts import LAYOUTS
from tests.datamodule.readers.test_formats import content, make_samples


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace Kaggle's client by a local folder; returns the handles that are requested."""
    handles: list[str] = []

    def download(handle: str, output_dir: str) -> None:
        handles.append(handle)
        LAYOUTS["kaggle"](Path(output_dir), make_samples())
        if len(handles) == 1:
            raise ConnectionError("no route")

    module = types.ModuleType("kagglehub")
    module.dataset_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return handles


def folders(path: Path) -> list[str]:
    return [entry.name for entry in path.iterdir() if entry.is_dir()]


def test_flickr_is_downloaded_once_and_a_failure_is_one_line_and_leaves_nothing(requests, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not downloaded \(.*no route\).*kaggle\.com/.*/flickr30k") as caught:
        FlickrDataModule(tmp_path / "Flickr30k", download=True).prepare_data()
    assert "\n" not in str(caught.value)
    assert folders(tmp_path) == []
    for download in (True, "flickr8k", False):
        data = FlickrDataModule(tmp_path / "Flickr30k", download=download)
        data.prepare_data()
        data.setup()
        assert data.table.num_pairs == 100
    assert (requests, folders(tmp_path)) == (["adityajn105/flickr30k"] * 2, ["Flickr30k"])


def test_other_data_is_not_touched_and_a_missing_client_or_wrong_name_is_one_line(
    requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    FlickrDataModule(tmp_path / "mine", download=True).prepare_data()
    assert ([path.name for path in (tmp_path / "mine").iterdir()], requests) == (["photo.jpg"], [])
    with pytest.raises(UserError, match="expected true, false, flickr8k or flickr30k"):
        FlickrDataModule(tmp_path / "new", download="flickr").prepare_data()
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match="kagglehub is not installed: poetry install --extras kaggle"):
        FlickrDataModule(tmp_path / "new", download=True).prepare_data()


def test_a_data_set_of_the_hub_is_written_once_and_read(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    samples = make_samples()
    LAYOUTS["imagefolder_jsonl_splits"](tmp_path / "source", samples)
    for _ in range(2):
        data = HubDataModule(tmp_path / "out" / "mine", dataset=str(tmp_path / "source"))
        data.prepare_data()
        data.setup()
        assert content(data.table) == {sample.name: (sample.captions, 5 * k) for k, sample in enumerate(samples)}
        assert {split: len(images) for split, images in data.splits.items()} == {"train": 40, "val": 5, "test": 5}
        monkeypatch.setattr("datasets.load_dataset", None)  # the second time nothing is loaded


def test_each_config_and_revision_of_the_hub_has_its_own_folder() -> None:
    with initialize_config_dir(str(Path("configs").resolve()), version_base="1.3"):
        common = ["datamodule=hub", "datamodule.dataset=o/n", "paths.data_dir=X"]
        given = [[], ["datamodule.config_name=a"], ["datamodule.revision=v2"]]
        found = [compose("train", [*common, *overrides]).datamodule.data_dir for overrides in given]
    assert found == ["X/hub//o/n@main", "X/hub/a/o/n@main", "X/hub//o/n@v2"]


def test_the_hub_out_of_reach_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr(hub, "is_hub_reachable", lambda: False)
    with pytest.raises(UserError, match=r"dataset='owner/name' cannot be downloaded \(ConnectionError") as caught:
        HubDataModule(tmp_path / "mine", dataset="owner/name").prepare_data()
    assert "\n" not in str(caught.value)
    assert folders(tmp_path) == []
