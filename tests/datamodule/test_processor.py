"""The transform against image processors themselves, and captions to tokens and back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as torchvision_functional
from transformers import AutoImageProcessor, BeitImageProcessor, DeiTImageProcessor, ViTImageProcessor
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from src.datamodule.images.decode import load_image
from src.datamodule.processor import ImageTransform
from src.utils.errors import UserError
from tests.datamodule.tiny import preprocessing, transform

TOLERANCE = 2 / 255 + 1e-6  # of a pixel on the scale of 0 to 1, before normalization
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
OLD_VIT = {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "resample": 2, **HALF}


def difference(processor: Any, image_transform: ImageTransform, picture: Image.Image) -> float:
    """The largest difference of a pixel, 0 to 1, before normalization."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    found = image_transform(pixels)
    expected = torch.as_tensor(processor(picture, return_tensors="pt")["pixel_values"][0])
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    units = torch.tensor(image_transform.std).view(3, 1, 1) / (image_transform.rescale * 255)
    return ((found - expected).abs() * units).max().item()


def smooth(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


PROCESSORS = {
    "vit": ViTImageProcessor(),
    "vit in pillow": ViTImageProcessorPil(),
    "deit": DeiTImageProcessor(),
    "deit in pillow": DeiTImageProcessorPil(),
    "beit": BeitImageProcessor(),
    "beit in pillow": BeitImageProcessorPil(),
    "beit with crop": BeitImageProcessor(do_center_crop=True, size={"height": 256, "width": 256}),
    "swin": ViTImageProcessor(resample=3, size={"height": 256, "width": 192}),
    "shortest edge": ViTImageProcessor(size={"shortest_edge": 64}, do_center_crop=True, crop_size=48),
    "crop over the edge": ViTImageProcessor(size={"shortest_edge": 40}, do_center_crop=True, crop_size=49),
    "no rescaling": ViTImageProcessor(do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3),
    "no normalizing": ViTImageProcessor(do_normalize=False),
    "nearest": ViTImageProcessor(resample=0),
    "lanczos": ViTImageProcessor(resample=1),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(200, 133), (131, 200), (600, 455), (30, 31), (1, 1), (900, 3)])
def test_pixels_of_image_processors(name: str, size: tuple[int, int]) -> None:
    processor = PROCESSORS[name]
    assert difference(processor, ImageTransform.from_processor(processor), smooth(*size)) <= TOLERANCE


def test_preprocessor_config_of_2022(tmp_path: Path) -> None:
    """`ViTFeatureExtractor` with `size: 224`, as the published checkpoint has it."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(OLD_VIT))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    found = ImageTransform.from_processor(processor)
    assert (found.height, found.width, found.resample, found.mean) == (224, 224, 2, (0.5, 0.5, 0.5))
    assert difference(processor, found, smooth(200, 150)) <= TOLERANCE


def test_no_resizing_needs_a_crop() -> None:
    processor = ViTImageProcessor(**HALF, do_resize=False, do_center_crop=True, crop_size=16)
    assert ImageTransform.from_processor(processor)(torch.zeros(3, 20, 9, dtype=torch.uint8)).shape == (
        3,
        16,
        16,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"longest_edge": 9}}, "'height'"),
        ({"size": {"shortest_edge": 9}}, "images of different sizes"),
        ({"do_resize": False}, "images of different sizes"),
        ({"resample": 4}, "unknown filter"),
        ({"resample": [2]}, "unknown filter"),
        ({"size": 100_000}, "100000 pixels"),
        ({"size": {"shortest_edge": -1}, "do_center_crop": True, "crop_size": 9}, "-1 pixels"),
        ({"size": ["a", "b"]}, "expected one size of 1 to 4096 pixels"),
        ({"rescale_factor": "x"}, "rescale_factor='x'"),
        ({"image_mean": None}, "image_mean=None"),
        ({"image_std": [0.5]}, "number of channels"),
    ],
)
def test_invalid_settings_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ImageTransform.from_processor(ViTImageProcessor(**{**HALF, **change}))
    assert "\n" not in str(caught.value)


class Mirrored(ViTImageProcessor):
    """A processor that does more than its settings say."""

    def _preprocess(self, images: list[torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        return super()._preprocess([image.flip(-1) for image in images], *args, **kwargs)


class Padded(ViTImageProcessor):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return {"pixel_values": torch.zeros(1, 3, 300, 300)}


class NotAntialiased(ViTImageProcessor):
    def __call__(self, image: torch.Tensor, **kwargs: Any) -> Any:
        resized = torchvision_functional.resize(image, [224, 224], antialias=False)
        return {"pixel_values": [(resized / 255 - 0.5) / 0.5]}


class Failing(ViTImageProcessor):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise KeyError("size")


@pytest.mark.parametrize("processor", [Mirrored(), Padded(), NotAntialiased(), Failing()])
def test_a_processor_that_does_something_else_is_refused(processor: Any) -> None:
    with pytest.raises(UserError, match=type(processor).__name__):
        ImageTransform.from_processor(processor)


def test_fingerprint_changes_with_any_setting() -> None:
    changes = [
        {},
        {"resize": (9, 9)},
        {"resample": 3},
        {"mean": (0.4,) * 3},
        {"rescale": 1.0},
        {"crop": (8, 8)},
    ]
    assert len({replace(transform(), **change).fingerprint() for change in changes}) == len(changes)


def test_batch_normalizes_as_single_pictures_do() -> None:
    pixels = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    single = [transform()(image) for image in pixels]
    assert torch.equal(transform().normalize(pixels), torch.stack(single))
    expected = (pixels / 255 - 0.5) / 0.5
    assert torch.allclose(transform().normalize(pixels), expected, atol=1e-6)


def test_real_photographs_and_figures(shared_data: Path) -> None:
    """All 700 photographs and 7 figures, against the processor of the published checkpoint, both ways."""
    paths = sorted((shared_data / "flickr8k" / "Images").iterdir())
    paths += sorted((shared_data / "medicat" / "figures").iterdir())
    assert len(paths) == 707
    processor = ViTImageProcessor(**HALF)
    in_pillow = ViTImageProcessorPil(**HALF)
    image_transform = ImageTransform.from_processor(processor)
    worst = 0.0
    for number, path in enumerate(paths):
        with Image.open(path) as picture:
            rgb = picture.convert("RGB")
        found = image_transform(load_image(path))
        for one in (processor, in_pillow) if number % 10 == 0 or number >= 700 else (processor,):
            expected = torch.as_tensor(one(rgb, return_tensors="pt")["pixel_values"][0])
            worst = max(worst, ((found - expected).abs() / 2).max().item())
    assert worst <= TOLERANCE


def test_captions_are_cut_to_the_limit_and_to_the_positions() -> None:
    words = preprocessing(max_positions=10)
    assert words.token_limit() == 9
    assert len(words.encode_caption("a" * 50)) == 9
    assert len(words.encode_caption("a" * 50, limit=4)) == 4
    assert len(words.encode_caption("a" * 50, limit=40)) == 9
    assert words.tokenize([]) == []
    assert words.encode_caption("") == []


def test_a_caption_cannot_end_itself() -> None:
    words = preprocessing()
    text = "a <|endoftext|> b"
    ids = words.encode_caption(text)
    assert words.eos_id not in ids
    assert words.decode(ids) == text


def test_decoding_stops_at_the_end_and_collapses_whitespace() -> None:
    words = preprocessing()
    ids = words.encode_caption("  two\n\n dogs ")
    rest = words.encode_caption("never read")
    assert words.decode([words.start_id, *ids, words.eos_id, *rest]) == "two dogs"
    assert words.decode(torch.tensor([*ids, words.eos_id])) == "two dogs"
    assert words.decode([words.start_id, words.eos_id, *rest]) == ""
    assert words.decode([]) == ""


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives_the_tokens(text: str) -> None:
    words = preprocessing(max_positions=1000)
    assert words.decode(words.encode_caption(text)) == " ".join(text.split())


def test_a_lone_surrogate_is_no_crash() -> None:
    words = preprocessing()
    assert words.decode(words.encode_caption("a\ud800b")) == "a?b"
