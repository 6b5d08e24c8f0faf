"""Write README.md of an exported model: what it is, its data, training, scores, limits and license."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.models.restore import Restored
from src.report.run_files import RunFiles, read_json_object, read_metrics
from src.report.scores import score_rows

READ_IMAGE = re.compile(r"^def read_image.*?(?=\n\n\n)", re.DOTALL | re.MULTILINE)


def model_card(found: Restored, dtype: str) -> str:
    """Return the card's text, from the checkpoint and its run folder where there is one.

    Scores are those of a run's best checkpoint alone, which is the one that was scored. Commands, folders and user
    names of the machine are omitted.
    """
    config: Mapping[str, Any] = found.trained.get("config", {})
    data = _group(config, "datamodule")
    name = _cell(data.get("_target_", "")).rpartition(".")[2]
    run = RunFiles(found.run_dir or Path("nowhere"))  # a damaged file makes the card shorter
    is_scored = found.file is not None and found.file.name == "best.ckpt"
    metrics = (run.read("metrics.json", read_metrics) if is_scored else None) or {}
    about = run.read("run.json", read_json_object) or {}
    sizes = {split: metrics.get(f"data/{split}_images") for split in ("train", "val", "test")}
    is_hub_id = not Path(found.base).is_absolute() and " + " not in found.base
    sha256 = str(found.trained.get("base_sha256", ""))[:12]
    local = "a local model" + (f" (sha256 of its weights: {sha256}...)" if sha256 else "")
    script = Path(__file__).parents[1] / "models" / "onnx_caption.py"  # reads the pixels of training
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["cell"] = _cell
    return environment.get_template("model_card.md.jinja").render(
        found=found, dtype=dtype, base=found.base, is_hub_id=is_hub_id, has_config=bool(config),
        base_name=f"`{found.base}`" if is_hub_id else local,
        encoder=type(found.model.encoder).__name__, decoder=type(found.model.decoder).__name__,
        num_weights=sum(weight.numel() for weight in found.model.parameters()),
        read_image=READ_IMAGE.findall(script.read_text(encoding="utf-8"))[0] + "\n",
        data={key: data.get(key) for key in ("fold", "num_folds", "split_ratios", "split_seed")},
        data_module=name, training=_training(config, metrics, about),
        counts=[f"{size:,.0f} {split}" for split, size in sizes.items() if size is not None],
        scores=score_rows(metrics),
    )  # fmt: skip


def _group(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def _training(config: Mapping[str, Any], metrics: Mapping[str, float], about: Mapping[str, Any]) -> dict[str, Any]:
    model, optimizer = _group(config, "model"), _group(_group(config, "model"), "optimizer")
    method = model.get("train", "last_blocks")
    blocks = f", last {model.get('num_layers_to_train', 1)} blocks" if method == "last_blocks" else ""
    versions = _group(about, "versions")
    return {
        "trained": f"{method}{blocks}",
        "optimizer": str(optimizer.get("_target_", "")).rpartition(".")[2],
        "peak learning rate": optimizer.get("lr"),
        "images per step": _group(config, "datamodule").get("batch_size"),
        "epochs, at most": _group(config, "trainer").get("max_epochs"),
        "seed": config.get("seed"),
        "seconds of training": metrics.get("time/fit_seconds"),
        "commit": about.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
