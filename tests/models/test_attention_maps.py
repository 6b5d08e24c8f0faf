"""Cross-attention maps: right words, right rows, right patches, and None where there is no grid."""

from dataclasses import dataclass, field

import pytest
import torch

from src.datamodule.processor import ImageTransform
from src.models.attention_maps import cross_attention, grid_side, visible_crop, word_attention
from tests.models.random_captioner import WIDTH, captioner, random_states

WORDS = ["<end>", " a", " dog", " run", "ning", " on", " gra", "ss", "."]
GRID = 2  # of 5 states, one of a class token


@dataclass
class Pieces:
    """Stands in for Processor: ids are indices of WORDS, a blank begins a word."""

    start_id: int = 0
    eos_id: int = 0
    pad_id: int = 0
    order: list[str] = field(default_factory=lambda: WORDS)

    def encode_caption(self, text: str) -> list[int]:
        ids, rest = [], f" {text}" if text else ""
        while rest:
            piece = max((word for word in self.order if rest.startswith(word)), key=len)
            ids.append(self.order.index(piece))
            rest = rest[len(piece) :]
        return ids

    def decode(self, ids) -> str:
        return "".join(self.order[number] for number in ids).strip()


def test_pieces_become_words_with_one_map_each():
    dog, grass = word_attention(captioner(), Pieces(), random_states(2), ["a dog running on grass.", "a dog"])
    assert dog.words == ["a", "dog", "running", "on", "grass."]
    assert dog.heat.shape == (5, GRID, GRID)
    assert dog.heat.dtype == torch.float32
    assert grass.words == ["a", "dog"]
    for heat in (dog.heat, grass.heat):
        assert float(heat.min()) >= 0
        assert torch.allclose(heat.amax(dim=(1, 2)), torch.ones(len(heat)))
    alone, empty = word_attention(captioner(), Pieces(), random_states(2)[[1, 0]], ["a dog", ""])
    assert torch.allclose(alone.heat, grass.heat, atol=1e-6)  # a longer neighbour changes nothing
    assert (empty.words, empty.heat.shape) == ([], (0, GRID, GRID))


def test_the_map_of_a_word_is_where_its_tokens_attend():
    """Patches that all hold one vector get equal attention; the one that matches every query gets all of it."""
    model = captioner()
    cross = model.decoder.transformer.h[-1].crossattention
    encoded = random_states(1)
    chosen = 3  # patch 2 of the grid, behind the class token
    with torch.no_grad():
        for block in model.decoder.transformer.h:
            block.crossattention.q_attn.weight.zero_()
            block.crossattention.q_attn.bias.fill_(1.0)
        encoded[:] = 0
        encoded[0, chosen] = cross.c_attn.weight[:, :WIDTH].sum(dim=1) * 1e4  # along its keys' sum
    heat = word_attention(model, Pieces(), encoded, ["a dog"])[0].heat
    assert heat.flatten(1).argmax(dim=1).tolist() == [chosen - 1, chosen - 1]


def test_a_token_has_the_attention_of_the_position_that_generates_it():
    model, encoded = captioner(), random_states(1)
    ids = Pieces().encode_caption("a dog running")
    rows = cross_attention(model, Pieces(), encoded, [ids])[0]
    first_alone = cross_attention(model, Pieces(), encoded, [ids[:1]])[0]
    assert torch.allclose(rows[0], first_alone[0], atol=1e-6)  # generated from the start token
    assert torch.allclose(rows.sum(dim=-1), torch.ones(len(ids)))


def test_states_that_are_no_square_grid_give_none():
    assert word_attention(captioner(), Pieces(), torch.randn(2, 8, WIDTH), ["a", "a"]) is None
    model = captioner()
    model.encoder.config.image_size = (16, 64)  # a wide image of as many patches
    assert word_attention(model, Pieces(), random_states(2), ["a", "a"]) is None


def test_a_bert_decoder_of_another_width_works():
    maps = word_attention(captioner("bert", width=16), Pieces(), random_states(2), ["a dog", "a dog running"])
    assert [len(found.words) for found in maps] == [2, 3]


@pytest.mark.parametrize(
    ("num_states", "side"), [(197, 14), (198, 14), (49, 7), (50, 7), (2, 1), (52, None), (0, None)]
)
def test_the_grid_is_found_from_the_number_of_states(num_states, side):
    assert grid_side(num_states) == side


def transform(resize, crop):
    return ImageTransform(resize, crop, 2, 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("resize", "crop", "size", "region"),
    [
        ((224, 224), None, (300, 500), (0, 0, 1, 1)),
        ((256, 256), (224, 224), (300, 500), (0.0625, 0.0625, 0.9375, 0.9375)),
        (100, (100, 100), (100, 200), (0.25, 0, 0.75, 1)),
        (100, (50, 100), (400, 200), (0, 0.375, 1, 0.625)),
        (None, (30, 30), (60, 30), (0, 0.25, 1, 0.75)),
        ((100, 100), (200, 200), (100, 100), (0, 0, 1, 1)),
    ],
)
def test_the_visible_crop_of_an_image(resize, crop, size, region):
    assert visible_crop(transform(resize, crop), *size) == pytest.approx(region)
