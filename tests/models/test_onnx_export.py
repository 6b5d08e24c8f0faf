"""The ONNX graphs give torch's logits and tokens."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.captioner import Captioner
from src.export import export
from src.models import onnx_export
from src.models.onnx_export import check_graphs, write_onnx
from src.models.restore import open_captioner
from src.utils.errors import UserError
from tests.saved_run import save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "run"
    save_run(folder, tiny_checkpoint)
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    """Graphs stay fp32 and unrounded where the weights are written in half precision."""
    return export(run, tmp_path_factory.mktemp("out") / "captioner", dtype="float16", onnx=True)


@pytest.mark.slow
def test_the_script_beside_the_graphs_captions_without_torch(run, exported, flickr_folder):
    paths = sorted((flickr_folder / "Images").iterdir())[:5]
    command = [sys.executable, "-P", str(exported / "onnx" / "caption.py"), *map(str, paths)]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    captions = Captioner.from_checkpoint(run, precision="32", num_beams=1).caption(paths)
    assert done.stdout.splitlines() == [
        f"{path}: {caption}" for path, caption in zip(paths, captions, strict=True)
    ]
    assert "torch" not in (exported / "onnx" / "caption.py").read_text().split('"""')[2]


@pytest.mark.slow
def test_graphs_of_another_model_are_rejected(exported, tiny_checkpoint):
    other = open_captioner(tiny_checkpoint)
    with pytest.raises(UserError, match=r"logits differ by .*; expected at most 1e-03; set onnx=false"):
        check_graphs(other.model, other.processor, exported / "onnx", 12)


def test_a_model_that_cannot_be_exported_is_rejected_in_one_line(run, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no such operator\nmany lines")

    monkeypatch.setattr(torch.onnx, "export", fail)
    found = open_captioner(run)
    before = found.model.decoder.config._attn_implementation
    with pytest.raises(
        UserError, match=r"GPT2LMHeadModel cannot be exported to ONNX \(no such operator\)"
    ) as caught:
        write_onnx(found.model, found.processor, tmp_path / "onnx", 12)
    assert "\n" not in str(caught.value)
    assert found.model.decoder.config._attn_implementation == before


def test_missing_packages_are_named_before_the_work(monkeypatch, run, tmp_path):
    monkeypatch.setattr(onnx_export, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"no_such_package, not installed; .* pip install no_such_package"):
        export(run, tmp_path / "out", onnx=True)
    assert list(tmp_path.iterdir()) == []
