"""What trains is found by structure; LoRA adapters train, are saved and merged; a wrong choice is one line."""

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
)

from src.models.freezing import add_lora, choose_trainable, count_frozen_blocks, find_blocks, merge_adapter
from src.models.kernels.gpt2 import is_plain_gpt2
from src.models.loss import packed_loss
from src.utils.errors import UserError
from tests.models.folders import encoder_config
from tests.models.random_captioner import captioner, packed, random_captions, random_states, separate_nll


def trained(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_blocks_of_flat_lists_and_of_stages_come_in_order():
    vit = ViTModel(encoder_config("vit"))
    assert find_blocks(vit) == list(vit.layers)
    with torch.device("meta"):
        swin = AutoModel.from_config(SwinConfig())
    stages = [block for stage in swin.encoder.layers for block in stage.blocks]
    assert list(map(id, find_blocks(swin))) == list(map(id, stages))
    assert len(stages) == 2 + 2 + 6 + 2
    swin = AutoModel.from_config(encoder_config("swin", depths=[1, 1]))
    assert [type(block).__name__ for block in find_blocks(swin)] == ["SwinLayer", "SwinLayer"]
    with pytest.raises(UserError, match="no list of transformer blocks"):
        find_blocks(nn.Linear(2, 2))


def test_nothing_is_frozen_where_all_blocks_or_what_precedes_them_train():
    vit = ViTModel(encoder_config("vit")).requires_grad_(False)
    assert count_frozen_blocks(vit) == 3
    vit.layers[1].requires_grad_(True)
    assert count_frozen_blocks(vit) == 1
    vit.embeddings.cls_token.requires_grad_(True)
    assert count_frozen_blocks(vit) == 0


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta", "bart"])
def test_cross_attention_trains_with_its_norm_and_nothing_else(kind):
    model = captioner(kind)
    modules = choose_trainable(model, "cross_attention", 1)
    names = trained(model)
    assert all("cross" in name or "encoder_attn" in name for name in names)
    assert {re.search(r"\.(\d)\.", name)[1] for name in names} == {"0", "1", "2"}  # every block
    inside = {id(weight) for module in modules for weight in module.parameters()}
    assert all(id(model.get_parameter(name)) in inside for name in names)


def test_full_is_all_but_the_pooler():
    model = captioner()
    assert choose_trainable(model, "full", 1) == [model]
    frozen = {name for name, _ in model.named_parameters()} - trained(model)
    assert frozen == {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}


@pytest.mark.parametrize("train", ["last_blocks", "cross_attention", "lora", "full"])
def test_a_projection_always_trains(train):
    model = captioner(width=16)
    choose_trainable(model, train, 1)
    assert {"enc_to_dec_proj.weight", "enc_to_dec_proj.bias"} <= trained(model)


def test_the_default_model_trains_16539648_weights():
    with torch.device("meta"):
        config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), GPT2Config())
        model = VisionEncoderDecoderModel(config)
    blocks = choose_trainable(model, "last_blocks", 1)
    assert [sum(w.numel() for w in block.parameters()) for block in blocks] == [7_087_872, 9_451_776]
    assert sum(w.numel() for w in model.parameters() if w.requires_grad) == 16_539_648


@pytest.mark.parametrize(
    ("train", "count", "message"),
    [
        ("last_blocks", -1, "num_layers_to_train=-1; expected 0 to 2, the blocks of the enc"),
        ("last_blocks", 3, "num_layers_to_train=3; expected 0 to 2, the blocks of the enc"),
        ("last_blocks", 0, "num_layers_to_train=0 find nothing to train"),
        ("cross_attention", 1, r"model\.train=cross_attention .* find nothing to train"),
        ("head", 1, r"model\.train=head .* find nothing to train"),
    ],
)
def test_a_wrong_choice_is_one_line(train, count, message):
    model = captioner()
    for block in model.decoder.transformer.h:  # no known name
        block.look, block.look_norm = block.crossattention, block.ln_cross_attn
        del block.crossattention, block.ln_cross_attn
    with pytest.raises(UserError, match=message):
        choose_trainable(model, train, count)


def adapted(kind="gpt2", **settings):
    model = captioner(kind)
    choose_trainable(model, "lora", 1)
    add_lora(model, settings)
    return model


def randomize_adapters(model, scale=0.3):
    """Change every adapter from its initial value, where it changes nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight += scale * torch.randn(weight.shape, generator=generator)


def test_encoder_and_decoder_get_adapters_cross_attention_included():
    model = adapted()
    names, first = trained(model), "decoder.transformer.h.0."
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    layers = {name.split(".lora_")[0].removeprefix(first) for name in names if name.startswith(first)}
    assert layers == {"attn.c_attn", "crossattention.c_attn", "crossattention.q_attn"}
    assert sum(name.startswith("encoder.") for name in names) == 2 * 2 * 2  # blocks, q and v, A and B
    assert model.decoder.transformer.h[0].attn.c_attn.lora_A["default"].weight.shape == (8, 32)
    names = trained(adapted(layers_to_transform=[1]))
    assert {name.split(".")[3] for name in names if name.startswith("decoder")} == {"1"}
    assert {name.split(".")[2] for name in names if name.startswith("encoder")} == {"1"}


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta", "bart"])
def test_packed_captions_have_the_loss_of_separate_ones_adapted_and_merged(kind):
    plain, model = captioner(kind), adapted(kind)
    rows, states = random_captions(), random_states()
    before = separate_nll(plain, states, rows)
    torch.testing.assert_close(packed_loss(model, states, packed(rows))[0], before, rtol=1e-5, atol=1e-4)
    randomize_adapters(model)
    assert not is_plain_gpt2(model.decoder)
    nll, _ = packed_loss(model, states, packed(rows))
    torch.testing.assert_close(nll, separate_nll(model, states, rows), rtol=1e-5, atol=1e-4)
    assert abs(nll - before) > 1e-3
    merge_adapter(model)
    assert set(model.state_dict()) == set(plain.state_dict())
    assert is_plain_gpt2(model.decoder) == (kind == "gpt2")
    merged, _ = packed_loss(model, states, packed(rows))
    torch.testing.assert_close(merged, nll, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 4}, r"argument 'rank'; expected settings of peft\.LoraConfig such as r=8"),
        ({"r": 0}, r"positive integer.*; expected settings of peft\.LoraConfig"),
        ({"layers_to_transform": [7]}, r"model\.lora=.*7.*; expected settings of peft\.LoraConfig"),
        ({"target_modules": ["q_attn"]}, "no layer of the encoder's .*k_proj.* is among"),
    ],
)
def test_a_wrong_setting_of_lora_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        adapted(**settings)
