"""HubDataModule: a data set of the Hugging Face Hub as train, val and test batches."""

from pathlib import Path
from typing import Any

from filelock import FileLock

from src.datamodule.caption_table import CaptionTable
from src.datamodule.folder import FolderDataModule
from src.utils.errors import UserError
from src.utils.files import scratch_folder
from src.utils.hub import is_hub_reachable
from src.utils.logging import get_logger

log = get_logger(__name__)


class HubDataModule(FolderDataModule):
    """A folder of parquet files that is downloaded once; `settings` as for FolderDataModule.

    dataset: "owner/name", or a local folder that `datasets` reads. config_name: of a data set that has several.
    """

    def __init__(
        self,
        data_dir: str | Path,
        *,
        dataset: str,
        config_name: str | None = None,
        revision: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(data_dir, **settings)
        read = self.reader

        def download_and_read() -> CaptionTable:
            download_dataset(self.data_dir, dataset, config_name, revision)
            return read()

        self.reader = download_and_read


def download_dataset(data_dir: Path, dataset: str, config_name: str | None = None, revision: str | None = None) -> None:
    """Write a data set into `data_dir` as one parquet file per split, whole or not at all; nothing where it exists.

    UserError where `datasets` is not installed, or the data set cannot be downloaded or written.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(data_dir.with_name(f".{data_dir.name}.lock")):
        if data_dir.is_dir() and any(data_dir.iterdir()):
            return
        try:
            import datasets
            from datasets.table import embed_table_storage

            if not Path(dataset).is_dir() and not is_hub_reachable():
                raise ConnectionError("the hub cannot be reached")
            log.info("downloading %s into %s", dataset, data_dir)
            with scratch_folder(data_dir.parent, f".{data_dir.name}.") as scratch:
                partial = scratch / "data"
                partial.mkdir()
                for split, rows in datasets.load_dataset(dataset, config_name or None, revision=revision).items():
                    for name, feature in rows.features.items():
                        if isinstance(feature, datasets.Image):
                            rows = rows.cast_column(name, datasets.Image(decode=False))
                    embedded = rows.with_format("arrow").map(embed_table_storage, batched=True, batch_size=100)
                    embedded.to_parquet(partial / f"{split}.parquet", batch_size=100)
                partial.rename(data_dir)
        except Exception as error:  # of the packages datasets, requests and pyarrow
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            if isinstance(error, ImportError):
                reason = "the package datasets is not installed: pip install datasets"
            raise UserError(
                f"datamodule.dataset={dataset!r} cannot be downloaded ({reason}); expected owner/name of a data set "
                "and a connection; correct the name, or download it elsewhere and set datamodule=folder"
            ) from error
