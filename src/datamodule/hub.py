"""HubDataModule: a data set of the Hugging Face Hub as train, val and test batches."""

from pathlib import Path
from typing import Any

from src.datamodule.folder import FolderDataModule
from src.utils.errors import UserError
from src.utils.files import create_folder_once
from src.utils.hub import is_hub_reachable


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
        self.dataset, self.config_name, self.revision = dataset, config_name, revision

    def prepare_data(self) -> None:
        """Write the data set into `data_dir`; UserError where it cannot be downloaded or written."""
        create_folder_once(self.data_dir, self._write_parquet)

    def _write_parquet(self, folder: Path) -> None:
        """Write one parquet file per split, the bytes of its images included."""
        try:
            import datasets
            from datasets.table import embed_table_storage

            if not Path(self.dataset).is_dir() and not is_hub_reachable():
                raise ConnectionError("the hub cannot be reached")
            splits = datasets.load_dataset(self.dataset, self.config_name or None, revision=self.revision)
            folder.mkdir()
            for split, rows in splits.items():
                for name, feature in rows.features.items():
                    if isinstance(feature, datasets.Image):
                        rows = rows.cast_column(name, datasets.Image(decode=False))
                embedded = rows.with_format("arrow").map(embed_table_storage, batched=True, batch_size=100)
                embedded.to_parquet(folder / f"{split}.parquet", batch_size=100)
        except Exception as error:  # of the packages datasets, requests and pyarrow
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            if isinstance(error, ImportError):
                reason = "the package datasets is not installed: pip install datasets"
            raise UserError(
                f"datamodule.dataset={self.dataset!r} cannot be downloaded ({reason}); expected owner/name of a data "
                "set and a connection; correct the name, or download it elsewhere and set datamodule=folder"
            ) from error
