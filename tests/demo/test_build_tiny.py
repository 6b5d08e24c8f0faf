"""The untrained tiny captioner, and the shipped one: a normal folder of the real classes, small."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, VisionEncoderDecoderModel

from src.demo.build_tiny import BLOCKS, SHIPPED, main
from src.utils.errors import UserError


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    main([f"folder={folder}", "seed=1"])
    return folder


@pytest.mark.parametrize("which", ["untrained", "shipped"])
@pytest.mark.slow
def test_a_normal_folder_of_two_million_weights(untrained, which):
    folder = untrained if which == "untrained" else SHIPPED
    model = VisionEncoderDecoderModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    assert 1.8e6 < model.num_parameters() < 2.6e6
    assert len(model.encoder.layers) == len(model.decoder.transformer.h) == BLOCKS
    assert model.config.decoder.vocab_size == len(tokenizer)
    ids = {model.config.pad_token_id, model.config.eos_token_id, model.config.decoder_start_token_id}
    assert ids == {tokenizer.eos_token_id}
    assert ids == {model.generation_config.decoder_start_token_id, model.generation_config.eos_token_id}
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 8e6


def test_the_shipped_tokenizer_is_the_one_that_is_built(untrained):
    built, shipped = (AutoTokenizer.from_pretrained(folder) for folder in (untrained, SHIPPED))

    assert built.get_vocab() == shipped.get_vocab()
    assert built.tokenize("A girl in a yellow gown carrying a lantern .") == [
        *("A", "Ġgirl", "Ġin", "Ġa", "Ġyellow", "Ġgown", "Ġcarrying", "Ġa", "Ġlantern", "Ġ."),
    ]
    for text in ("Zwölf Boxkämpfer 🙂", "hyperintense lesion, 3 cm", "tab\tand  blanks"):
        assert built.decode(built(text)["input_ids"]) == text


def test_unknown_arguments_are_rejected():
    with pytest.raises(UserError, match="'size=3'"):
        main(["size=3"])
