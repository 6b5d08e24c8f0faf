"""The transform against image processors themselves, and captions to tokens and back."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as torchvision_functional
from transformers import AutoImageProcessor, BeitImageProcessor, ViTImageProcessor
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from src.datamodule.images.decode import load_image
from src.datamodule.processor import ImageTransform, load_processor, make_processor
from src.models.pretrained import load_captioner
from src.utils.errors import UserError
from tests.datamodule.tiny import tiny_processor, transform
from tests.models.folders import encoder_config, ids, tokenizer
from tests.models.random_captioner import decoder_config

TOLERANCE = 2 / 255 + 1e-6  # of a pixel on the scale of 0 to 1, before normalization
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def difference(processor: Any, transform: ImageTransform, image: Image.Image) -> float:
    """The largest difference of a pixel, 0 to 1, before normalization."""
    found = transform(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    expected = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0])
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    units = torch.tensor(transform.std).view(3, 1, 1) / (transform.rescale * 255)
    return ((found - expected).abs() * units).max().item()


def smooth(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


PROCESSORS = {
    "vit in pillow": ViTImageProcessorPil(),
    "deit in pillow": DeiTImageProcessorPil(),
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
def test_pixels_of_image_processors(name: str) -> None:
    found = ImageTransform.from_processor(PROCESSORS[name])
    for size in ((200, 133), (131, 200), (600, 455), (30, 31), (1, 1), (900, 3)):
        assert difference(PROCESSORS[name], found, smooth(*size)) <= TOLERANCE, size


def test_preprocessor_config_of_2022(tmp_path: Path) -> None:
    """`ViTFeatureExtractor` with `size: 224`, as the published checkpoint has it."""
    config = {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "resample": 2, **HALF}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    found = ImageTransform.from_processor(processor)
    assert found == ImageTransform((224, 224), None, 2, 1 / 255, (0.5,) * 3, (0.5,) * 3)
    assert difference(processor, found, smooth(200, 150)) <= TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"longest_edge": 9}}, "'height'"),
        ({"size": {"shortest_edge": 9}}, "images of different sizes"),
        ({"resample": 4}, "unknown filter"),
        ({"size": 100_000}, "100000 pixels"),
        ({"size": {"shortest_edge": -1}, "do_center_crop": True, "crop_size": 9}, "-1 pixels"),
        ({"size": ["a", "b"]}, "one size of 1 to 4096 pixels"),
        ({"image_mean": None}, "image_mean=None"),
        ({"image_std": [0.5]}, "number of channels"),
    ],
)
def test_invalid_settings_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ImageTransform.from_processor(ViTImageProcessor(**{**HALF, **change}))
    assert "\n" not in str(caught.value)


def mirrored(image: torch.Tensor) -> torch.Tensor:
    return ViTImageProcessor(**HALF)(image.flip(-1), return_tensors="pt")["pixel_values"][0]


def not_antialiased(image: torch.Tensor) -> torch.Tensor:
    return (torchvision_functional.resize(image, [224, 224], antialias=False) / 255 - 0.5) / 0.5


def failing(image: torch.Tensor) -> torch.Tensor:
    raise KeyError("size")


@pytest.mark.parametrize("pixels", [mirrored, not_antialiased, failing])
def test_a_processor_that_does_something_else_is_refused(pixels: Any) -> None:
    class Unusual(ViTImageProcessor):
        def __call__(self, image: torch.Tensor, **_: Any) -> Any:
            return {"pixel_values": [pixels(image)]}

    with pytest.raises(UserError, match="Unusual"):
        ImageTransform.from_processor(Unusual(**HALF))


def test_fingerprint_changes_with_any_setting() -> None:
    changes = {"resize": (9, 9), "resample": 3, "mean": (0.4,) * 3, "rescale": 1.0, "crop": (8, 8)}
    changed = [replace(transform(), **{name: value}) for name, value in changes.items()]
    assert len({one.fingerprint() for one in (transform(), *changed)}) == 6


def test_real_photographs_and_figures(shared_data: Path) -> None:
    """70 Flickr8k images and 7 MedICaT figures, against the processor of the published checkpoint, both ways."""
    paths = sorted((shared_data / "flickr8k" / "Images").iterdir())[::10]
    paths += sorted((shared_data / "medicat" / "figures").iterdir())
    processors = ViTImageProcessor(**HALF), ViTImageProcessorPil(**HALF)
    image_transform = ImageTransform.from_processor(processors[0])
    for path in paths:
        rgb = Image.open(path).convert("RGB")
        found = image_transform(load_image(path))
        for one in processors:
            expected = torch.as_tensor(one(rgb, return_tensors="pt")["pixel_values"][0])
            assert (found - expected).abs().max().item() / 2 <= TOLERANCE, path


def test_captions_are_cut_to_the_limit_and_to_the_positions() -> None:
    processor = tiny_processor(max_positions=10)
    assert [processor.token_limit(limit) for limit in (None, 4, 40)] == [9, 4, 9]
    assert len(processor.encode_caption("a" * 50)) == 9
    assert processor.tokenize([]) == processor.encode_caption("") == []


def test_a_caption_ends_at_the_end_token_and_not_by_its_own_text() -> None:
    processor, text = tiny_processor(), "a <|endoftext|> b"
    ids = processor.encode_caption(text)
    assert processor.eos_id not in ids
    for tokens in (ids, [processor.start_id, *ids, processor.eos_id, *ids], torch.tensor([*ids, processor.eos_id])):
        assert processor.decode(tokens) == text
    assert processor.decode([processor.start_id, processor.eos_id, *ids]) == processor.decode([]) == ""


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives_the_tokens(text: str) -> None:
    processor = tiny_processor(max_positions=1000)
    assert processor.decode(processor.encode_caption(text)) == " ".join(text.split())
    assert processor.decode(processor.encode_caption("a\ud800b")) == "a?b"


# Special ids: of the first place that names them, an error on contradictions

IDS = ("decoder_start_token_id", "eos_token_id", "pad_token_id")


def configs(kind="bert", size=32):
    """The configs of a captioner without special ids."""
    config = SimpleNamespace(decoder=decoder_config(kind, 32), encoder=encoder_config("vit", image_size=size))
    for name in (*IDS, "bos_token_id"):
        setattr(config.decoder, name, None)
    return config, SimpleNamespace()


def make(config, generation, tokens=None):
    image_processor = ViTImageProcessor(size={"height": 32, "width": 32})
    return make_processor(config, generation, tokens or tokenizer("bert"), image_processor)


def test_load_processor_equals_the_loaded_models(tiny_checkpoint):
    found, expected = load_processor(str(tiny_checkpoint)), load_captioner(str(tiny_checkpoint)).processor
    for name in ("image", "start_id", "eos_id", "pad_id", "max_positions"):
        assert getattr(found, name) == getattr(expected, name)
    with pytest.raises(UserError, match=r"model\.from_encoder_decoder\.decoder is empty"):
        load_processor(from_encoder_decoder={"encoder": str(tiny_checkpoint), "decoder": ""})
    with pytest.raises(UserError, match=r"model\.checkpoint is empty"):
        load_processor()


def test_the_config_wins_over_generation_config_decoder_and_tokenizer():
    for last in range(3):
        config, generation = configs()
        for number, place in list(enumerate((config, generation, config.decoder), 5))[last:]:
            place.pad_token_id = number
        assert make(config, generation).pad_id == 5 + last


def test_ids_come_last_from_the_tokenizer_and_eos_pads_without_a_padding_token():
    found = make(*configs())
    assert [found.start_id, found.eos_id, found.pad_id] == [ids("bert")[name] for name in IDS]
    tokens = tokenizer("gpt2")
    found = make(*configs("gpt2"), tokens)
    assert found.start_id == found.eos_id == found.pad_id == tokens.eos_token_id


def test_robertas_positions_begin_after_its_padding_id():
    config, generation = configs("roberta")
    config.decoder.pad_token_id = 1
    positions = make(config, generation, tokenizer("roberta")).max_positions
    assert positions == config.decoder.max_position_embeddings - 2


def test_missing_or_contradicting_eos_ids_and_ids_beyond_the_vocabulary_are_refused():
    config, generation = configs()
    config.eos_token_id = 7
    with pytest.raises(UserError, match="eos_token_id=7 in the checkpoint's config"):
        make(config, generation)
    tokens = copy.deepcopy(tokenizer("gpt2"))
    tokens.bos_token = tokens.eos_token = None
    with pytest.raises(UserError, match="eos_token_id is in neither"):
        make(*configs("gpt2"), tokens)
    config, generation = configs()
    size = config.pad_token_id = config.decoder.vocab_size
    with pytest.raises(UserError, match=f"knows token {size} and the decoder has {size}"):
        make(config, generation)
    tokens = tokenizer("bert", " ".join(f"word{n}" for n in range(size)))
    with pytest.raises(UserError, match="expected a tokenizer and image processor that belong"):
        make(*configs(), tokens)


def test_another_image_size_than_the_encoders_is_refused():
    with pytest.raises(UserError, match="gives 32 x 32 pixels and the encoder takes 48 x 48"):
        make(*configs(size=48))
    config, generation = configs()
    config.encoder.image_size = [32, 32]
    assert make(config, generation).image.height == 32
