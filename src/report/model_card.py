"""Write README.md of an exported model: what it is, its data, training, scores, limits and license."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.models.restore import Restored
from src.report.run_files import RunFiles, read_json_object, read_metrics
from src.report.scores import score_rows
from src.utils.run_folder import flat

FOLDER = Path(__file__).parent
SCRIPT = FOLDER.with_name("models") / "onnx_caption.py"
READ_IMAGE = re.compile(r"^def read_image.*?(?=\n\n\n)", re.DOTALL | re.MULTILINE)  # the pixels of training


def model_card(found: Restored, dtype: str) -> str:
    """Return the card's text, from the checkpoint and its run folder where there is one.

    Scores are those of a run's best checkpoint alone, which is the one that was scored. Commands, folders and user
    names of the machine are omitted.
    """
    config: dict[str, Any] = dict(flat(found.trained.get("config", {})))
    run = RunFiles(found.run_dir or Path("nowhere"))  # a damaged file makes the card shorter
    is_scored = found.file is not None and found.file.name == "best.ckpt"
    metrics = (run.read("metrics.json", read_metrics) if is_scored else None) or {}
    about = dict(flat(run.read("run.json", read_json_object) or {}))
    versions = [f"{key[9:]} {value}" for key, value in about.items() if key.startswith("versions.")]
    method = config.get("model.train", "last_blocks")
    blocks = f", last {config.get('model.num_layers_to_train', 1)} blocks" if method == "last_blocks" else ""
    training = {
        "trained": f"{method}{blocks}",
        "optimizer": str(config.get("model.optimizer._target_", "")).rpartition(".")[2],
        "peak learning rate": config.get("model.optimizer.lr"),
        "images per step": config.get("datamodule.batch_size"),
        "epochs, at most": config.get("trainer.max_epochs"),
        "seed": config.get("seed"),
        "seconds of training": metrics.get("time/fit_seconds"),
        "commit": about.get("commit"),
        "versions": ", ".join(versions),
    }
    is_hub_id = not Path(found.base).is_absolute() and " + " not in found.base
    sha256 = str(found.trained.get("base_sha256", ""))[:12]
    local = "a local model" + (f" (sha256 of its weights: {sha256}...)" if sha256 else "")
    environment = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    sizes = {split: metrics.get(f"data/{split}_images") for split in ("train", "val", "test")}
    return environment.get_template("model_card.md.jinja").render(
        found=found,
        dtype=dtype,
        is_hub_id=is_hub_id,
        base_name=f"`{found.base}`" if is_hub_id else local,
        encoder=type(found.model.encoder).__name__,
        decoder=type(found.model.decoder).__name__,
        num_weights=sum(weight.numel() for weight in found.model.parameters()),
        read_image=READ_IMAGE.findall(SCRIPT.read_text("utf-8"))[0] + "\n",
        data={key: config.get(f"datamodule.{key}") for key in ("fold", "num_folds", "split_ratios", "split_seed")},
        data_module=_cell(config.get("datamodule._target_", "")).rpartition(".")[2],
        training={name: _cell(value) for name, value in training.items() if value not in (None, "")},
        counts=[f"{size:,.0f} {split}" for split, size in sizes.items() if size is not None],
        scores=score_rows(metrics),
    )


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
