"""The ONNX graphs give torch's logits and tokens; the script beside them reads images as this project does."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DeiTImageProcessor, ViTImageProcessor

from src.captioner import Captioner
from src.datamodule.images.decode import load_image
from src.datamodule.images.transform import ImageTransform
from src.export import export
from src.models.generation import generate_ids, generation_config
from src.models.restore import open_captioner
from src.utils.errors import UserError
from tests.models.random_captioner import END, captioner
from tests.models.test_generation import SETTINGS, Digits
from tests.saved_run import save_run

script = pytest.importorskip("src.models.onnx_caption", exc_type=ImportError)
onnx_export = pytest.importorskip("src.models.onnx_export", exc_type=ImportError)


@pytest.mark.slow
def test_the_script_beside_the_graphs_captions_without_torch(flickr_folder, tiny_checkpoint, tmp_path):
    """Graphs stay fp32 and unrounded where the weights are written in half precision."""
    generation = {"length_penalty": 0.5, "no_repeat_ngram_size": 2}
    save_run(tmp_path / "run", tiny_checkpoint, generation=generation)
    folder = export(tmp_path / "run", tmp_path / "out", dtype="float16", onnx=True)
    paths = sorted((flickr_folder / "Images").iterdir())[:5]
    command = [sys.executable, "-P", str(folder / "onnx" / "caption.py"), *map(str, paths)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    captions = Captioner.from_checkpoint(tmp_path / "run", precision="32").caption(paths)
    assert done.stdout.splitlines() == [f"{path}: {text}" for path, text in zip(paths, captions, strict=True)]
    assert "torch" not in (folder / "onnx" / "caption.py").read_text().split('"""')[2]

    other = open_captioner(tiny_checkpoint)
    with pytest.raises(UserError, match=r"logits differ by .*; expected at most 1e-03; set onnx=false"):
        onnx_export.check_graphs(other.model, other.processor, folder / "onnx", {"max_length": 12, "num_beams": 1})


class TorchGraph:
    """A graph that onnxruntime would run, run by torch."""

    def __init__(self, module, blocks):
        self.module, self.blocks = module, blocks

    def get_inputs(self):
        return [SimpleNamespace(name=str(k)) for k in range(1 + 4 * self.blocks)]

    @torch.no_grad()
    def run(self, _, inputs):
        first, *caches = map(torch.as_tensor, inputs.values())
        half = len(caches) // 2
        found = self.module(first, caches[:half], caches[half:]) if caches else self.module(first)
        return [one.numpy() for one in (found if not caches else [found[0], *found[1]])]


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("name", [*SETTINGS, "max_length"])
def test_the_script_has_the_tokens_of_generate_for_each_setting(name, num_beams):
    model = captioner()
    with torch.no_grad():
        model.decoder.lm_head.weight[END] *= 2
    value = {"temperature": 1e-4, "top_p": 1e-4, "do_sample": False}.get(name, SETTINGS.get(name, 9))
    settings = {"max_length": 12, "num_beams": num_beams, name: value, "seed": 0}
    if name in ("temperature", "top_p"):
        settings["do_sample"] = True
    config, blocks = generation_config(Digits(), settings), len(model.decoder.transformer.h)
    graphs = [TorchGraph(one(model).eval(), blocks) for one in (onnx_export.EncoderGraph, onnx_export.DecoderGraph)]
    for seed in range(4):
        pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected = generate_ids(model, model.encoder(pixels).last_hidden_state, config)[0].tolist()
        assert script.generate(pixels.numpy(), graphs, config.to_diff_dict()) == expected


def test_a_model_that_cannot_be_exported_is_rejected_in_one_line(tiny_checkpoint, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no such operator\nmany lines")

    monkeypatch.setattr(torch.onnx, "export", fail)
    found = open_captioner(tiny_checkpoint)
    before = found.model.decoder.config._attn_implementation
    with pytest.raises(UserError, match=r"GPT2LMHeadModel cannot be exported .*operator\); expected [^\n]*$"):
        onnx_export.write_onnx(found.model, found.processor, tmp_path / "onnx", {"max_length": 12, "num_beams": 1})
    assert found.model.decoder.config._attn_implementation == before


def test_missing_packages_are_named_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "src.models.onnx_export", None)
    with pytest.raises(UserError, match=r"onnx=true: .*; expected the extra onnx; poetry install --extras onnx"):
        export(tmp_path / "run", tmp_path / "out", onnx=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(size={"height": 32, "width": 32}),
        DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}),
        DeiTImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
    ],
    ids=["resized", "cropped", "by the shorter side"],
)
def test_pixels_are_those_of_the_model(processor, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(noise).resize((60, 48), Image.Resampling.BICUBIC).save(path)
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    expected = ImageTransform.from_processor(processor)(load_image(path)).numpy()[None]
    found = script.load_pixels(str(path), settings)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (1, 3, 32, 32)
    assert np.abs(found - expected).max() < 0.05  # of 2: both round to whole pixel values


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "P with transparency", "I;16", "F", "CMYK", "1"])
def test_images_of_all_modes_are_read_as_in_training(mode, orientation, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (5, 7, 4), np.uint8)
    image = Image.fromarray(noise, "RGBA")
    if mode.startswith("P"):
        image = image.convert("RGB").quantize(16)
    elif mode in ("I;16", "F"):
        deep = np.asarray(image.convert("L")).astype(np.uint16 if mode == "I;16" else np.float32)
        image = Image.fromarray(deep * 257 if mode == "I;16" else deep / 255)
    else:
        image = image.convert("RGB").convert(mode) if mode in ("CMYK", "1", "RGB") else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{'tiff' if mode in ('CMYK', 'F') else 'png'}"
    image.save(path, exif=exif, **({"transparency": 3} if "transparency" in mode else {}))
    found = np.asarray(script.read_image(str(path)))
    assert np.array_equal(found, load_image(path).permute(1, 2, 0).numpy())
