"""The script that goes with the graphs: pictures as the model saw them, tokens until the end."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers import DeiTImageProcessor, ViTImageProcessor

from src.datamodule.images.decode import load_image
from src.datamodule.processor import ImageTransform
from tests.models.folders import tokenizer

script = pytest.importorskip("src.models.onnx_caption", exc_type=ImportError)
HEADS, PATCHES, WIDTH, VOCABULARY, END = 2, 5, 3, 12, 0


class Encoder:
    """Keys and values of one block, the mean of the pixels in all of them."""

    def run(self, names, given):
        (pixels,) = given.values()
        return [np.full((1, HEADS, PATCHES, WIDTH), pixels.mean(), np.float32)] * 2


class Decoder:
    """Says one word after another, the first by the pixels, and holds what it is given against the graph's form."""

    def __init__(self, words):
        self.words = words

    def get_inputs(self):
        return [SimpleNamespace(name=n) for n in ("input_ids", "cross.0.key", "cross.0.value", "past.0.key",
                                                  "past.0.value")]  # fmt: skip

    def run(self, names, given):
        past = given["past.0.key"]
        steps = past.shape[2]
        assert past.shape == given["past.0.value"].shape == (1, HEADS, steps, WIDTH)
        assert given["cross.0.key"].shape == (1, HEADS, PATCHES, WIDTH)
        expected = self.words[steps - 1] if steps else END
        assert given["input_ids"].tolist() == [[expected]]
        logits = np.zeros((1, VOCABULARY), np.float32)
        logits[0, self.words[steps]] = 1
        grown = np.concatenate([past, np.zeros((1, HEADS, 1, WIDTH), np.float32)], axis=2)
        return [logits, grown, grown]


@pytest.mark.parametrize(("most", "expected"), [(9, [5, 7, 3]), (4, [5, 7, 3]), (3, [5, 7])])
def test_tokens_are_said_until_the_end_or_the_limit(most, expected):
    how = {"decoder_start_token_id": END, "eos_token_id": END, "max_length": most}
    pixels = np.zeros((1, 3, 8, 8), np.float32)
    assert script.caption(pixels, Encoder(), Decoder([5, 7, 3, END, 9, 9, 9]), how) == expected


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
    path = tmp_path / "picture.png"
    Image.fromarray(noise).resize((60, 48), Image.Resampling.BICUBIC).save(path)
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    expected = ImageTransform.from_processor(processor)(load_image(path)).numpy()[None]
    found = script.pixels_of(str(path), settings)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (1, 3, 32, 32)
    assert np.abs(found - expected).max() < 0.05  # of 2: both round to whole pixel values


def test_each_picture_gets_a_line(tmp_path, monkeypatch, capsys):
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    words = tokenizer("gpt2")
    words.save_pretrained(tmp_path)
    how = {"decoder_start_token_id": END, "eos_token_id": END, "max_length": 9}
    (tmp_path / "generation_config.json").write_text(json.dumps(how))
    said = words("red square above circle")["input_ids"]
    sessions = {"encoder.onnx": Encoder(), "decoder.onnx": Decoder([*said, END])}
    monkeypatch.setattr(script.onnxruntime, "InferenceSession", lambda path: sessions[path.name])
    monkeypatch.setattr(script, "FOLDER", tmp_path / "onnx")
    monkeypatch.setattr(script, "SAVED", tmp_path)
    paths = [str(tmp_path / name) for name in ("a.png", "b.jpg")]
    for path, mode in zip(paths, ("LA", "RGB"), strict=True):
        Image.new(mode, (20, 10)).save(path)
    script.main(paths)
    assert capsys.readouterr().out.splitlines() == [f"{path}: red square above circle" for path in paths]
