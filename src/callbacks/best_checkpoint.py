"""`best.ckpt` of a run that goes on in a folder of its own: the best of both folders."""

import shutil
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from src.utils.files import atomic_write
from src.utils.logging import get_logger

log = get_logger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """ModelCheckpoint that takes the earlier run's best files along.

    A continued run has a new folder; the earlier one stays as it was. Lightning would begin anew there, and a
    later epoch that is worse than the earlier run's best would count as the best. Here the earlier files are
    copied into the new folder with their scores.
    """

    _earlier: Path | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note which folder the run goes on from; called before `load_state_dict`."""
        path = trainer.ckpt_path if trainer.state.fn == TrainerFn.FITTING else None
        self._earlier = Path(path).parent if path else None
        self._writes = trainer.is_global_zero

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the best files of the earlier folder, which may have been moved, and count them as ours."""
        if self._earlier is None or str(self._earlier) == str(self.dirpath):
            super().load_state_dict(state_dict)
            return
        moved = {path: self._take(Path(path)) for path in state_dict["best_k_models"]}
        kept = {moved[path]: score for path, score in state_dict["best_k_models"].items() if moved[path]}
        if len(kept) < len(moved):
            log.warning("%s holds no best checkpoint any more; the best is sought anew", self._earlier)
            return
        names = ("best_model_path", "kth_best_model_path")
        renamed = {name: moved.get(state_dict[name], "") for name in names}
        super().load_state_dict(
            {**state_dict, **renamed, "best_k_models": kept, "dirpath": self.dirpath, "last_model_path": ""}
        )

    def _take(self, path: Path) -> str:
        """The new path of an earlier file, "" where there is none."""
        assert self._earlier is not None
        assert self.dirpath is not None
        found = next((file for file in (self._earlier / path.name, path) if file.is_file()), None)
        if found is None:
            return ""
        target = Path(self.dirpath) / path.name
        if self._writes:
            with atomic_write(target, "wb") as copy, found.open("rb") as original:
                shutil.copyfileobj(original, copy, 1 << 20)
        return str(target)
