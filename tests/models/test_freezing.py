"""What trains is found by structure; a wrong choice is one line."""

import re

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    GPT2Config,
    SwinConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)  # fmt: skip

from src.models.freezing import choose_trainable, find_blocks
from src.utils.errors import UserError
from tests.models.folders import encoder_config
from tests.models.random_captioner import captioner


def trained(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_blocks_of_flat_lists_and_of_stages_come_in_order():
    vit = ViTModel(encoder_config("vit"))
    assert find_blocks(vit) == list(vit.layers)
    with torch.device("meta"):
        swin = AutoModel.from_config(SwinConfig())
    assert [id(block) for block in find_blocks(swin)] == [
        id(block) for stage in swin.encoder.layers for block in stage.blocks
    ]
    assert len(find_blocks(swin)) == 2 + 2 + 6 + 2


def test_a_stage_of_one_block_counts_as_its_block():
    swin = AutoModel.from_config(encoder_config("swin", depths=[1, 1]))
    assert [type(block).__name__ for block in find_blocks(swin)] == ["SwinLayer", "SwinLayer"]


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta", "bart"])
def test_cross_attention_trains_with_its_norm_and_nothing_else(kind):
    model = captioner(kind)
    modules = choose_trainable(model, "cross_attention", 1)
    names = trained(model)
    assert names
    assert all("cross" in name or "encoder_attn" in name for name in names)
    assert {re.search(r"\.(\d)\.", name)[1] for name in names} == {"0", "1", "2"}  # every block
    inside = {id(weight) for module in modules for weight in module.parameters()}
    assert all(id(model.get_parameter(name)) in inside for name in names)


def test_full_is_all_but_the_pooler():
    model = captioner()
    assert choose_trainable(model, "full", 1) == [model]
    frozen = {name for name, _ in model.named_parameters()} - trained(model)
    assert frozen == {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}


def test_a_projection_always_trains():
    for train in ("last_blocks", "cross_attention", "lora", "full"):
        model = captioner(width=16)
        choose_trainable(model, train, 1)
        assert {"enc_to_dec_proj.weight", "enc_to_dec_proj.bias"} <= trained(model)


def test_newly_initialized_weights_train_their_whole_cross_attention():
    model = captioner("bert")
    new_weights = [name for name, _ in model.named_parameters() if "crossattention" in name]
    modules = choose_trainable(model, "last_blocks", 1, new_weights)
    assert set(new_weights) <= trained(model)
    first = model.decoder.bert.encoder.layer[0].crossattention
    assert any(module is first for module in modules)


@pytest.mark.parametrize(
    ("train", "count", "message"),
    [
        ("last_blocks", -1, "num_layers_to_train=-1; expected 0 to 2, the blocks of the enc"),
        ("last_blocks", 3, "num_layers_to_train=3; expected 0 to 2, the blocks of the enc"),
        ("last_blocks", 0, "num_layers_to_train=0 find nothing to train"),
        ("head", 1, "expected one of last_blocks, cross_attention, lora, full"),
    ],
)
def test_a_wrong_choice_is_one_line(train, count, message):
    with pytest.raises(UserError, match=message):
        choose_trainable(captioner(), train, count)
    with pytest.raises(UserError, match="no list of transformer blocks"):
        find_blocks(nn.Linear(2, 2))


def test_a_decoder_without_a_known_cross_attention_is_an_error():
    model = captioner()
    for block in model.decoder.transformer.h:
        block.look = block.crossattention
        block.look_norm = block.ln_cross_attn
        del block.crossattention, block.ln_cross_attn
    with pytest.raises(UserError, match=r"model\.train=cross_attention .* find nothing to train"):
        choose_trainable(model, "cross_attention", 1)


def test_the_default_model_trains_16539648_weights():
    with torch.device("meta"):
        config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), GPT2Config())
        model = VisionEncoderDecoderModel(config)
    blocks = choose_trainable(model, "last_blocks", 1)
    assert [sum(w.numel() for w in block.parameters()) for block in blocks] == [7_087_872, 9_451_776]
    assert sum(w.numel() for w in model.parameters() if w.requires_grad) == 16_539_648
