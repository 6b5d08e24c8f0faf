"""What a run was, in words: base model, data, what trained and how, where."""

from pathlib import Path
from typing import Any

from src.report.run_files import RunFiles
from src.report.scores import number

TRAINED = {"cross_attention": "cross-attention", "lora": "LoRA adapters", "full": "all weights"}
FACTS = {  # label -> key of config_resolved.yaml, run.json or metrics.json
    "Learning rate": "model.optimizer.lr", "Device": "device", "Machine": "machine", "Precision": "precision",
    "Images per step": "datamodule.batch_size", "Training time, seconds": "time/fit_seconds",
    "Best validation loss": "val/loss_best", "Best validation CIDEr-D": "val/cider_d_best",
    "Rows skipped in the data": "data/skipped_rows", "Images unreadable during the run": "data/unreadable_images",
    "Seed": "seed", "Started": "started", "Commit": "commit",
}  # fmt: skip


def count(amount: int, noun: str) -> str:
    """Write a number of things: `1 image`, `1,200 images`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def data_name(config: dict[str, Any]) -> str:
    """Name the data of a config (dotted keys): their kind, and their hub id or folder."""
    kind = str(config.get("datamodule._target_", "")).rpartition(".")[2].removesuffix("DataModule")
    return ", ".join(filter(None, (kind, _last(config.get("datamodule.dataset") or config.get("datamodule.data_dir")))))


def _last(path: str | None) -> str:
    """Shorten a folder of the machine to its name; a hub id stays."""
    return Path(path).name if path and path[0] in "/$" else path or ""


def run_facts(run: RunFiles) -> dict[str, str]:
    """Return what is known of a run by label, in the order in which a reader asks."""
    config = run.config if "train" in run.config else {}
    known: dict[str, Any] = {"device": config.get("trainer.accelerator"), "precision": config.get("trainer.precision")}
    known |= config | {key: value for key, value in run.about.items() if value is not None}
    splits = {"train": "data/train_images", "validation": "data/val_images", "test": "data/test_images"}
    blocks = f"last {count(config.get('model.num_layers_to_train') or 0, 'block')} of encoder and decoder"
    facts = {
        "Base model": _last(config.get("model.checkpoint") or config.get("model.from_encoder_decoder.encoder")),
        "Data": data_name(config),
        "Images": ", ".join(f"{run.metrics[key]:,.0f} {name}" for name, key in splits.items() if key in run.metrics),
        "Epochs": str(len({row.get("epoch") for row in run.history if "train/loss" in row}) or ""),
        "Trained": TRAINED.get(config["model.train"], blocks) if "model.train" in config else "",
    }
    known |= {key: f"{value:.0f}" if value.is_integer() else number(value) for key, value in run.metrics.items()}
    facts |= {label: str(known[key]) for label, key in FACTS.items() if known.get(key) is not None}
    return {label: value for label, value in facts.items() if value}
