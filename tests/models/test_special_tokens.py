"""Start, end and padding ids: from wherever they are said, and refused where they contradict."""

import copy

import pytest
from transformers import ViTImageProcessor

from src.models.special_tokens import make_preprocessing
from src.utils.errors import UserError
from tests.models.drawn_captioner import decoder_config
from tests.models.folders import encoder_config, ids, tokenizer

IDS = ("decoder_start_token_id", "pad_token_id", "eos_token_id")


class Model:
    """The configs of a captioner; no weights are asked for."""

    def __init__(self, kind="bert", size=32):
        self.config = Plain(decoder=decoder_config(kind, 32))
        self.generation_config = Plain()
        self.encoder = Plain(config=encoder_config("vit", image_size=size))
        for name in (*IDS, "bos_token_id"):
            setattr(self.config.decoder, name, None)


class Plain:
    """Attributes that are there or not."""

    def __init__(self, **values):
        self.__dict__.update(values)


def made(model, words=None, processor=None):
    processor = processor or ViTImageProcessor(size={"height": 32, "width": 32})
    return make_preprocessing(model, words or tokenizer("bert"), processor)


def test_the_config_wins_over_generation_config_decoder_and_tokenizer():
    places = ("config", "generation", "decoder")
    for last in range(3):
        model = Model()
        for number, place in list(zip((5, 6, 7), places, strict=True))[last:]:
            where = {
                "config": model.config,
                "generation": model.generation_config,
                "decoder": model.config.decoder,
            }
            where[place].pad_token_id = number
        assert made(model).pad_id == 5 + last


def test_the_tokenizer_is_asked_last_and_the_end_pads_where_nothing_does():
    found = made(Model())
    assert (found.start_id, found.eos_id, found.pad_id) == tuple(
        ids("bert")[n] for n in (IDS[0], IDS[2], IDS[1])
    )
    words = tokenizer("gpt2")
    assert words.pad_token_id is None
    found = made(Model("gpt2"), words)
    assert found.start_id == found.eos_id == found.pad_id == words.eos_token_id


def test_a_list_of_ends_gives_its_first():
    model = Model()
    model.config.eos_token_id = [ids("bert")["eos_token_id"], 9]
    assert made(model).eos_id == ids("bert")["eos_token_id"]


def test_what_was_found_is_written_where_generation_looks():
    model = Model()
    found = made(model)
    for place in (model.config, model.generation_config):
        assert [getattr(place, name) for name in IDS] == [found.start_id, found.pad_id, found.eos_id]


def test_robertas_positions_begin_behind_its_padding():
    model = Model("roberta")
    model.config.decoder.pad_token_id = 1
    most = model.config.decoder.max_position_embeddings
    assert made(model, tokenizer("roberta")).max_positions == most - 2


def test_an_id_that_nobody_says_is_told():
    words = copy.deepcopy(tokenizer("gpt2"))
    words.bos_token = words.eos_token = None
    model = Model("gpt2")
    with pytest.raises(
        UserError, match=r"eos_token_id is in neither the checkpoint's config nor its tokenizer"
    ):
        made(model, words)
    model.config.eos_token_id = 0
    with pytest.raises(UserError, match="decoder_start_token_id is in neither"):
        made(model, words)


def test_an_end_that_is_said_in_two_ways_is_told():
    model = Model()
    model.config.eos_token_id = 7
    with pytest.raises(
        UserError, match=r"eos_token_id=7 in the checkpoint's config and .*expected one token"
    ):
        made(model)


def test_ids_beyond_the_vocabulary_are_told():
    model = Model()
    size = model.config.decoder.vocab_size
    model.config.pad_token_id = size
    with pytest.raises(
        UserError, match=f"knows token {size} and the decoder has {size}; expected a tokenizer"
    ):
        made(model)
    words = tokenizer("bert", " ".join(f"word{n}" for n in range(size)))
    with pytest.raises(UserError, match="expected a tokenizer that belongs to the decoder"):
        made(Model(), words)


def test_a_tokenizer_without_words_is_told():
    class Empty:
        eos_token_id = sep_token_id = 3
        bos_token_id = cls_token_id = pad_token_id = 2

        def __call__(self, text, **settings):
            return {"input_ids": []}

    with pytest.raises(UserError, match="the tokenizer makes nothing of 'a caption'"):
        made(Model(), Empty())


def test_pictures_of_another_size_than_the_encoders_are_told():
    with pytest.raises(
        UserError, match="gives 32 x 32 pixels and the encoder takes 48 x 48; expected one size"
    ):
        made(Model(size=48))
    model = Model()
    model.encoder.config.image_size = [32, 32]
    assert made(model).image.height == 32
