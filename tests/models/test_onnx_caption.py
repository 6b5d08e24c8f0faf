"""The script exported with the graphs reads images as this project does."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import DeiTImageProcessor, ViTImageProcessor

from src.datamodule.images.decode import load_image
from src.datamodule.images.transform import ImageTransform

script = pytest.importorskip("src.models.onnx_caption", exc_type=ImportError)


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


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    "mode", ["RGB", "L", "RGBA", "LA", "P", "P with transparency", "I;16", "F", "CMYK", "1"]
)
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
