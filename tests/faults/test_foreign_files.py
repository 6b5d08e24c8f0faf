"""No command removes or overwrites files that it did not write, in folders full of foreign files."""

import os
import time
from pathlib import Path

import pytest

from src import export, predict
from src.utils.errors import UserError
from tests.tasks.running import run_eval, run_train

NAMES = ("thesis/results.bin", "thesis/.notes.tmp", ".old.tmp", "a.safetensors", "runs/notes.txt", "best.ckpt",
         "caption_features/mine/features.safetensors", "caption_features/mine/.x.tmp", "checkpoints/last.ckpt",
         "config.json", "model.safetensors", "captions.csv", "README.md")  # fmt: skip


@pytest.fixture
def foreign(tmp_path) -> Path:
    """A folder of old files that look like ours."""
    folder, old = tmp_path / "disk", time.time() - 1e6
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 1000)
        os.utime(path, (old, old))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).is_file()}


@pytest.mark.slow
def test_train_eval_predict_and_export_leave_foreign_files_alone(foreign, tiny_checkpoint, flickr_folder):
    before = content(foreign)
    run = foreign / "train" / "runs" / "one"
    small = (f"callbacks.feature_cache.cache_dir={foreign}", "callbacks.feature_cache.size_limit_gb=0.001")
    run_train(run, tiny_checkpoint, flickr_folder, *small, "zero_shot=false", "trainer.max_steps=1")
    run_eval(foreign / "eval" / "runs" / "one", f"ckpt_path={run}", *small, "zero_shot=false")
    assert content(foreign) == before

    images = [path for path in flickr_folder.rglob("*") if path.suffix in (".jpg", ".png")][:8]
    predict.main([*map(str, images), f"checkpoint={run}", f"out={foreign}/new.csv"])
    with pytest.raises(UserError):
        export.main([f"checkpoint={run}", f"out={foreign}"])
    export.main([f"checkpoint={run}", f"out={foreign}/exported"])
    assert (foreign / "new.csv").is_file()
    assert (foreign / "exported" / "config.json").is_file()
    assert content(foreign) == before
    assert len(before) == len(NAMES)
