"""Special ids and what a processor checks: read from the first place that names them, refused where they contradict."""

import copy

import pytest
from transformers import ViTImageProcessor

from src.datamodule.processor import load_processor, make_processor
from src.models.pretrained import load_captioner
from src.utils.errors import UserError
from tests.models.folders import encoder_config, ids, tokenizer
from tests.models.random_captioner import decoder_config

IDS = ("decoder_start_token_id", "pad_token_id", "eos_token_id")


class Config:
    """Attributes that are there or not."""

    def __init__(self, **values):
        self.__dict__.update(values)


class Configs:
    """The configs of a captioner without special ids."""

    def __init__(self, kind="bert", size=32):
        self.config = Config(decoder=decoder_config(kind, 32), encoder=encoder_config("vit", image_size=size))
        self.generation = Config()
        for name in (*IDS, "bos_token_id"):
            setattr(self.config.decoder, name, None)


def make(configs, tokens=None):
    image_processor = ViTImageProcessor(size={"height": 32, "width": 32})
    return make_processor(configs.config, configs.generation, tokens or tokenizer("bert"), image_processor)


def test_load_processor_equals_the_loaded_models(tiny_checkpoint):
    found, expected = load_processor(str(tiny_checkpoint)), load_captioner(str(tiny_checkpoint)).processor
    assert found.image == expected.image
    for name in ("start_id", "eos_id", "pad_id", "max_positions"):
        assert getattr(found, name) == getattr(expected, name)
    both = {"encoder": str(tiny_checkpoint), "decoder": str(tiny_checkpoint)}
    with pytest.raises(UserError, match=r"model\.from_encoder_decoder\.decoder is empty"):
        load_processor(from_encoder_decoder={**both, "decoder": ""})
    with pytest.raises(UserError, match=r"model\.checkpoint is empty"):
        load_processor()


def test_the_config_wins_over_generation_config_decoder_and_tokenizer():
    for last in range(3):
        configs = Configs()
        places = (configs.config, configs.generation, configs.config.decoder)
        for number, place in list(zip((5, 6, 7), places, strict=True))[last:]:
            place.pad_token_id = number
        assert make(configs).pad_id == 5 + last


def test_ids_come_last_from_the_tokenizer_and_eos_pads_without_a_padding_token():
    found = make(Configs())
    assert (found.start_id, found.eos_id, found.pad_id) == tuple(
        ids("bert")[n] for n in (IDS[0], IDS[2], IDS[1])
    )
    tokens = tokenizer("gpt2")
    assert tokens.pad_token_id is None
    found = make(Configs("gpt2"), tokens)
    assert found.start_id == found.eos_id == found.pad_id == tokens.eos_token_id


def test_a_list_of_eos_ids_gives_its_first():
    configs = Configs()
    configs.config.eos_token_id = [ids("bert")["eos_token_id"], 9]
    assert make(configs).eos_id == ids("bert")["eos_token_id"]


def test_robertas_positions_begin_after_its_padding_id():
    configs = Configs("roberta")
    configs.config.decoder.pad_token_id = 1
    most = configs.config.decoder.max_position_embeddings
    assert make(configs, tokenizer("roberta")).max_positions == most - 2


def test_a_missing_id_is_refused():
    tokens = copy.deepcopy(tokenizer("gpt2"))
    tokens.bos_token = tokens.eos_token = None
    configs = Configs("gpt2")
    with pytest.raises(
        UserError, match=r"eos_token_id is in neither the checkpoint's config nor its tokenizer"
    ):
        make(configs, tokens)
    configs.config.eos_token_id = 0
    with pytest.raises(UserError, match="decoder_start_token_id is in neither"):
        make(configs, tokens)


def test_contradicting_eos_ids_are_refused():
    configs = Configs()
    configs.config.eos_token_id = 7
    with pytest.raises(
        UserError, match=r"eos_token_id=7 in the checkpoint's config and .*expected one token"
    ):
        make(configs)


def test_ids_beyond_the_vocabulary_are_refused():
    configs = Configs()
    size = configs.config.decoder.vocab_size
    configs.config.pad_token_id = size
    with pytest.raises(
        UserError, match=f"knows token {size} and the decoder has {size}; expected a tokenizer"
    ):
        make(configs)
    tokens = tokenizer("bert", " ".join(f"word{n}" for n in range(size)))
    with pytest.raises(UserError, match="expected a tokenizer that belongs to the decoder"):
        make(Configs(), tokens)


def test_a_tokenizer_without_vocabulary_is_refused():
    class Empty:
        eos_token_id = sep_token_id = 3
        bos_token_id = cls_token_id = pad_token_id = 2

        def __call__(self, text, **settings):
            return {"input_ids": []}

    with pytest.raises(UserError, match="the tokenizer gives no token for 'a caption'"):
        make(Configs(), Empty())


def test_another_image_size_than_the_encoders_is_refused():
    with pytest.raises(
        UserError, match="gives 32 x 32 pixels and the encoder takes 48 x 48; expected one size"
    ):
        make(Configs(size=48))
    configs = Configs()
    configs.config.encoder.image_size = [32, 32]
    assert make(configs).image.height == 32
