"""Both notebooks run from top to bottom, on the tiny model and with no network."""

import os
import signal
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from src.demo.synthetic.datamodules import write_scenes


def run(root: Path, name: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(root / name, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(root)}}).execute()
    return notebook


def printed(notebook) -> str:
    return "\n".join(
        str(out.get("data", out.get("text", ""))) for cell in notebook.cells for out in cell.get("outputs", [])
    )


def tensorboards() -> set[int]:
    """Return the process ids of running TensorBoard servers; none where there is no /proc."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(argument.rpartition(b"/")[2] == b"tensorboard" for argument in arguments[:2]):
            found.add(int(entry.parent.name))
    return found


@pytest.mark.slow
def test_demo_shows_scores_images_attention_and_captions(root):
    before = tensorboards()
    try:
        text = printed(run(root, "demo.ipynb"))
    finally:
        for process in tensorboards() - before:
            os.kill(process, signal.SIGTERM)
    assert "CIDEr-D" in text
    assert text.count("image/png") >= 3
    assert " ." in text  # captions of the three images, as the demo's data writes them


@pytest.mark.slow
def test_run_flickr_trains_scores_and_shows(root, tmp_path, monkeypatch):
    write_scenes(tmp_path / "scenes", 40, "plain", size=48)
    monkeypatch.setenv("CAPTIONER_DATA", f"datamodule=flickr datamodule.data_dir={tmp_path / 'scenes'}")
    monkeypatch.setenv("CAPTIONER_MODEL", "model=vit_gpt2_tiny model.num_beams=1 model.max_length=12")
    monkeypatch.setenv("CAPTIONER_MORE", "trainer=default trainer.max_steps=2")
    before = set((root / "logs" / "train" / "runs").glob("*"))
    notebook = run(root, "run_flickr.ipynb")
    assert set((root / "logs" / "train" / "runs").glob("*")) - before
    assert "CIDEr-D" in printed(notebook)
    assert "error" not in printed(notebook).lower()
