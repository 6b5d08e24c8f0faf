"""What a run was, in words: base model, data, what trained and how, where."""

from pathlib import Path

from src.report.run_files import RunFiles
from src.report.scores import number

TRAINED = {"cross_attention": "cross-attention", "lora": "LoRA adapters", "full": "all weights"}


def count(amount: int, noun: str) -> str:
    """Write a number of things: `1 image`, `1,200 images`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def data_name(config: dict[str, str]) -> str:
    """Name the data of a config (dotted keys): their kind, and their hub id or folder."""
    kind = config.get("datamodule._target_", "").rpartition(".")[2].removesuffix("DataModule")
    return ", ".join(filter(None, (kind, config.get("datamodule.dataset") or _last(config.get("datamodule.data_dir")))))


def _last(path: str | None) -> str:
    """Shorten a folder of the machine to its name; a hub id stays."""
    return Path(path).name if path and path[0] in "/$" else path or ""


def run_facts(run: RunFiles) -> dict[str, str]:
    """Return what is known of a run by label, in the order in which a reader asks."""
    config, metrics, about = run.config if "train" in run.config else {}, run.metrics, run.about
    splits = {"train": "train", "val": "validation", "test": "test"}
    known = {name: metrics.get(f"data/{key}_images") for key, name in splits.items()}
    sizes = [f"{size:,.0f} {name}" for name, size in known.items() if size is not None]
    blocks = f"last {count(config.get('model.num_layers_to_train') or 0, 'block')} of encoder and decoder"
    optimizer = config.get("model.optimizer._target_", "").rpartition(".")[2]
    epochs = len({row["epoch"] for row in run.history if {"epoch", "train/loss"} <= row.keys()})
    references = sorted({len(row.references) for row in run.predictions})
    facts = {
        "Base model": _last(config.get("model.checkpoint") or config.get("model.from_encoder_decoder.encoder")),
        "Data": data_name(config),
        "Images": ", ".join(sizes) or count(len(run.predictions), "test image"),
        "Epochs": f"{epochs} of at most {config.get('trainer.max_epochs')}" if config and epochs else "",
        "Trained": TRAINED.get(config["model.train"], blocks) if "model.train" in config else "",
        "Learning rate": f"{config['model.optimizer.lr']}, {optimizer}" if "model.optimizer.lr" in config else "",
        "Device": about.get("machine") or config.get("trainer.accelerator"),
        "Precision": about.get("precision") or config.get("trainer.precision"),
        "References per image": " to ".join(map(str, references[:: max(1, len(references) - 1)])),
        "Images per step": config.get("datamodule.batch_size"),
        "Training time": f"{metrics['time/fit_seconds']:,.0f} s" if "time/fit_seconds" in metrics else "",
        "Best validation loss": number(metrics["val/loss_best"]) if "val/loss_best" in metrics else "",
        "Best validation CIDEr-D": number(metrics["val/cider_d_best"]) if "val/cider_d_best" in metrics else "",
        "Rows skipped in the data": f"{metrics.get('data/skipped_rows', 0):,.0f}",
        "Images unreadable during the run": f"{metrics.get('data/unreadable_images', 0):,.0f}",
        "Seed": about.get("seed"),
        "Started": str(about.get("started") or "").replace("T", " ")[:19],
        "Commit": about.get("commit"),
    }
    return {label: str(value) for label, value in facts.items() if value not in (None, "")}
