"""The backbone ends where training begins, and backbone and head are the encoder."""

import pytest
import torch
from transformers import AutoModel

from src.models.backbone import frozen_blocks, split_encoder, strip_pooler
from src.models.freezing import find_blocks
from tests.models.folders import SIZE, draw_zeros, encoder_config


def encoder(kind, num_last, **settings):
    torch.manual_seed(0)
    made = AutoModel.from_config(encoder_config(kind, **settings)).eval().requires_grad_(False)
    draw_zeros(made)
    blocks = find_blocks(made)
    for block in blocks[len(blocks) - num_last :]:
        block.requires_grad_(True)
    return made


@pytest.mark.parametrize("kind", ["vit", "deit", "beit", "beit_shared", "swin"])
@pytest.mark.parametrize("num_last", [0, 1, 2])
def test_backbone_and_head_are_the_encoder(kind, num_last):
    made = encoder(kind, num_last)
    assert frozen_blocks(made) == 3 - num_last
    backbone, head = split_encoder(made, (SIZE, SIZE))
    pixels = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(head(backbone(pixels)), made(pixels).last_hidden_state)
    assert {id(weight) for weight in backbone.parameters()} <= {id(weight) for weight in made.parameters()}
    assert not backbone(pixels).requires_grad
    assert head(backbone(pixels)).requires_grad == (num_last > 0)


def test_the_head_takes_features_of_another_precision():
    backbone, head = split_encoder(encoder("vit", 1), (SIZE, SIZE))
    features = backbone(torch.randn(2, 3, SIZE, SIZE))
    expected = head(features)
    assert torch.equal(head(features.double()), expected)
    torch.testing.assert_close(head(features.bfloat16()), expected, atol=0.05, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(features.bfloat16()), expected, atol=0.1, rtol=0.1, check_dtype=False)


def test_a_picture_that_leaves_odd_grids_passes_swin():
    made = encoder("swin", 2, depths=[1, 1, 1], num_heads=[1, 2, 2], image_size=40, window_size=2)
    backbone, head = split_encoder(made, (40, 40))  # 10 x 10 patches, then 5 x 5, then 3 x 3
    pixels = torch.randn(2, 3, 40, 40)
    assert backbone(pixels).shape[1] == 25
    torch.testing.assert_close(head(backbone(pixels)), made(pixels).last_hidden_state)


def test_no_backbone_where_all_blocks_or_what_is_before_them_train():
    assert split_encoder(encoder("vit", 3), (SIZE, SIZE)) is None
    made = encoder("vit", 1)
    made.embeddings.cls_token.requires_grad_(True)
    assert split_encoder(made, (SIZE, SIZE)) is None
    shared = encoder("beit_shared", 1)
    shared.shared_position_bias.requires_grad_(True)
    assert split_encoder(shared, (SIZE, SIZE)) is None


def test_no_backbone_in_an_encoder_of_another_build():
    made = encoder("vit", 1)
    made.blocks = made.layers
    del made.layers
    assert split_encoder(made, (SIZE, SIZE)) is None
    made = encoder("vit", 1)
    del made.layernorm
    assert split_encoder(made, (SIZE, SIZE)) is None


def test_a_face_strip_pooler_leaves_the_encoder_as_it_is():
    made = encoder("vit", 1)
    other = strip_pooler(made)
    assert made.pooler is not None
    assert other.pooler is None
    assert other.layers is made.layers
