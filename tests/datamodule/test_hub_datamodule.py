"""A data set that the package datasets reads becomes a folder of parquet files, once."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from src.datamodule import hub
from src.datamodule.hub import HubDataModule
from src.utils.errors import UserError
from tests.datamodule.layouts import LAYOUTS
from tests.datamodule.readers.test_formats import content, make_samples

pytest.importorskip("datasets")


def test_a_local_data_set_is_written_once_and_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    samples = make_samples()
    LAYOUTS["imagefolder_jsonl_splits"](tmp_path / "source", samples)
    data = HubDataModule(tmp_path / "out" / "mine", dataset=str(tmp_path / "source"))
    data.setup()
    assert content(data.table) == {sample.name: (sample.captions, 5 * k) for k, sample in enumerate(samples)}
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 40, "val": 5, "test": 5}
    monkeypatch.setattr("datasets.load_dataset", None)  # the second time nothing is loaded
    again = HubDataModule(tmp_path / "out" / "mine", dataset=str(tmp_path / "source"))
    again.setup()
    assert content(again.table) == content(data.table)


def test_each_config_and_revision_has_its_own_folder() -> None:
    with initialize_config_dir(str(Path("configs").resolve()), version_base="1.3"):
        common = ["datamodule=hub", "datamodule.dataset=o/n", "paths.data_dir=X"]
        given = [[], ["datamodule.config_name=a"], ["datamodule.revision=v2"]]
        folders = [compose("train", [*common, *overrides]).datamodule.data_dir for overrides in given]
    assert [str(Path(folder)) for folder in folders] == ["X/hub/o/n@main", "X/hub/a/o/n@main", "X/hub/o/n@v2"]


def test_offline_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(hub, "is_hub_reachable", lambda: False)
    with pytest.raises(UserError, match=r"dataset='owner/name' cannot be downloaded \(ConnectionError") as caught:
        HubDataModule(tmp_path / "mine", dataset="owner/name").setup()
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
