"""Frozen backbone and trained head together are the encoder."""

import pytest
import torch
from transformers import AutoModel

from src.models.backbone import backbone_features, count_frozen_blocks, has_block_list, run_head
from src.models.freezing import find_blocks
from tests.models.folders import SIZE, encoder_config, randomize_zeros


def encoder(kind, num_last, **settings):
    torch.manual_seed(0)
    made = AutoModel.from_config(encoder_config(kind, **settings)).eval().requires_grad_(False)
    randomize_zeros(made)
    blocks = find_blocks(made)
    for block in blocks[len(blocks) - num_last :]:
        block.requires_grad_(True)
    return made


@pytest.mark.parametrize("kind", ["vit", "deit", "beit", "beit_shared"])
@pytest.mark.parametrize("num_last", [0, 1, 2])
def test_backbone_and_head_are_the_encoder(kind, num_last):
    made = encoder(kind, num_last)
    depth = count_frozen_blocks(made)
    assert depth == 3 - num_last
    pixels = torch.randn(2, 3, SIZE, SIZE)
    features = backbone_features(made, pixels, depth)
    states = run_head(made, features, depth, (SIZE, SIZE))
    torch.testing.assert_close(states, made(pixels).last_hidden_state)
    assert not features.requires_grad
    assert states.requires_grad == (num_last > 0)


def test_the_head_takes_features_of_another_precision():
    made, size = encoder("vit", 1), (SIZE, SIZE)
    features = backbone_features(made, torch.randn(2, 3, SIZE, SIZE), 2)
    expected = run_head(made, features, 2, size)
    assert torch.equal(run_head(made, features.double(), 2, size), expected)
    torch.testing.assert_close(run_head(made, features.bfloat16(), 2, size), expected, atol=0.05, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        found = run_head(made, features.bfloat16(), 2, size)
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.1, check_dtype=False)


def test_nothing_is_frozen_where_all_blocks_or_what_precedes_them_train():
    assert count_frozen_blocks(encoder("vit", 3)) == 0
    made = encoder("vit", 1)
    made.embeddings.cls_token.requires_grad_(True)
    assert count_frozen_blocks(made) == 0


def test_an_encoder_of_stages_has_no_block_list():
    assert has_block_list(encoder("vit", 1))
    assert not has_block_list(encoder("swin", 1))
