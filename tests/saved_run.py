"""A run folder as training leaves it, made without training: trained weights moved a little off the base."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from src.models.checkpoint import METADATA_KEY
from src.models.vit_gpt2 import VitGpt2

METRICS = {
    "data/train_images": 32, "data/val_images": 4, "data/test_images": 4, "data/skipped_rows": 1,
    "data/unreadable_images": 0, "val/loss_best": 1.5, "test/loss": 1.25, "zero_shot/test/loss": 3.5,
    "test/cider_d": 0.9, "test/cider_d_low": 0.7, "test/cider_d_high": 1.1, "test/bleu_4": 0.25,
    "zero_shot/test/cider_d": 0.1, "zero_shot/test/cider_d_low": 0.0, "zero_shot/test/cider_d_high": 0.2,
}  # fmt: skip


def save_run(folder: Path, checkpoint: Path | str, seed: int = 1, **model: Any) -> VitGpt2:
    """Write `checkpoints/best.ckpt`, `config_resolved.yaml`, `run.json` and `metrics.json`; the module in it."""
    settings = {"checkpoint": str(checkpoint), "num_layers_to_train": 1, **model}
    settings["generation"] = {"num_beams": 3, "max_length": 12, **settings.get("generation", {})}
    torch.manual_seed(seed)
    module = VitGpt2(**settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.trained_weights().values():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    module.run_config = {
        "seed": 0,
        "model": {"_target_": "src.models.vit_gpt2.VitGpt2", **settings, "optimizer": {"_target_": "os.system"}},
        "datamodule": {
            "_target_": "src.datamodule.flickr.FlickrDataModule", "data_dir": "/somewhere/data/flickr8k",
            "batch_size": 16, "split_ratios": [0.8, 0.1, 0.1], "split_seed": 0, "fold": None,
        },
        "trainer": {"max_epochs": 3},
    }  # fmt: skip
    content: dict[str, Any] = {"epoch": 2, "global_step": 6, "state_dict": module.state_dict()}
    module.trainer = SimpleNamespace(world_size=1)
    module.on_save_checkpoint(content)
    module.trainer = None
    assert content[METADATA_KEY]["base"]
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    (folder / "config_resolved.yaml").write_text("task_name: train\n")
    (folder / "run.json").write_text(json.dumps({"command": "train.py", "commit": "abc1234", "seed": 0}))
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return module.eval()
