"""What Lightning lacks: loggers for csv and TensorBoard, and workarounds of its internals.

The workarounds are of pytorch-lightning 2.6.6; tests/utils/test_lightning_compat.py shows for each when it can go.
"""

import csv
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from src.utils.files import write_csv
from src.utils.logging import get_logger
from src.utils.run_folder import flat

log = get_logger(__name__)
GRACE_SECONDS = 3.0
SAVE_SECONDS = 10.0
SCORES = ("cider_d", "bleu_4", "loss")  # those of the test that TensorBoard shows
SETTINGS = (
    "seed", "datamodule.num_samples", "datamodule.batch_size", "model.checkpoint", "model.train",
    "model.num_layers_to_train", "model.optimizer.lr", "model.generation.num_beams",
    "trainer.max_epochs", "trainer.precision",
)  # fmt: skip


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keep Lightning from replacing our signal handlers: its own sets a flag that no validation or test reads."""
    trainer._signal_connector.register_signal_handlers = list  # type: ignore[assignment]  # does nothing; can be pickled


def load_loader_position(trainer: pl.Trainer) -> None:
    """Restore the training loader's position; Lightning does not where a schedule created the loader before."""
    trainer.fit_loop._load_combined_loader_states()


def end_restart(trainer: pl.Trainer) -> None:
    """Let plateau schedulers step at the end of an epoch that was resumed in its middle; Lightning skips that."""
    trainer.fit_loop._restarting = False


@contextmanager
def all_processes_end(trainer: pl.Trainer) -> Iterator[None]:
    """Kill the processes that Lightning started here when this one, rank 0, fails; it leaves them waiting."""
    try:
        yield
    except BaseException as error:
        launcher = trainer.strategy.launcher
        if launcher is not None and not getattr(error, "everywhere", False):
            if any(process.poll() is None for process in getattr(launcher, "procs", [])):
                time.sleep(GRACE_SECONDS)  # in which they report their own error
            launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
        raise


class ScoresFirstTensorBoard(TensorBoardLogger):
    """Lightning's logger whose first groups are test, train and val; `hparams` has a run's settings and scores."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log learning rates as `train/lr-...`, and not `epoch`, nor the losses of both tests as one curve."""
        left_out = ("epoch", "test/") if "epoch" in metrics else ()
        shown = {name: value for name, value in metrics.items() if not name.startswith(left_out)}
        super().log_metrics({f"{'train/' * name.startswith('lr-')}{name}": shown[name] for name in shown}, step)

    @rank_zero_only
    def log_scores(self, settings: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Log test scores, `test/cider_d_base` beside `test/cider_d`, with SETTINGS of a config as hparams."""
        models, values = {"": "", "_base": "zero_shot/"}, dict(flat(settings))
        names = {f"test/{name}{tag}": f"{model}test/{name}" for name in SCORES for tag, model in models.items()}
        scores = {tag: metrics[name] for tag, name in names.items() if name in metrics}
        self.log_hyperparams({name: values.get(name) for name in SETTINGS}, scores, step)
        self.finalize("success")


class CsvLogger(Logger):
    """Log numbers to `<save_dir>/metrics.csv`, one row a step; a resumed run continues its file.

    purge_step: drop from an earlier file what was logged at this optimizer step or later; None drops all. Lightning's
    own rewrites the file in place. Here it is replaced whole, at most every `SAVE_SECONDS`; rows that find no room on
    a full disk wait for it.
    """

    name, version = "csv", ""

    def __init__(self, save_dir: str, purge_step: int | None = None) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self._saved = 0.0
        if purge_step is not None and self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) < purge_step]

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `config_resolved.yaml` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.rows.append({**metrics, "step": step or 0})

    def save(self) -> None:
        """Write the file from time to time; the trainer calls this each `log_every_n_steps`."""
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.write()

    def finalize(self, status: str) -> None:
        self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write the file now."""
        columns = sorted({name for row in self.rows for name in row})
        try:
            if self.rows:
                write_csv(self.path, columns, [[row.get(name, "") for name in columns] for row in self.rows])
        except OSError as error:
            log.warning("%s cannot be written now (%s); its rows are kept", self.path, error.strerror)
        self._saved = time.monotonic()
