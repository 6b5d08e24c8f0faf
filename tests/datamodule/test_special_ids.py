"""Special ids and what a processor checks: read from the first place that names them, an error on contradictions."""

import copy
from types import SimpleNamespace

import pytest
from transformers import ViTImageProcessor

from src.datamodule.processor import load_processor, make_processor
from src.models.pretrained import load_captioner
from src.utils.errors import UserError
from tests.models.folders import encoder_config, ids, tokenizer
from tests.models.random_captioner import decoder_config

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
