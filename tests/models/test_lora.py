"""LoRA adapters of encoder and decoder train, are saved, scored and merged."""

import pytest
import torch
from transformers import VisionEncoderDecoderModel

from src.models.checkpoint import METADATA_KEY
from src.models.freezing import add_lora, choose_trainable, merge_adapter
from src.models.kernels.gpt2 import is_plain_gpt2
from src.models.loss import packed_loss
from src.models.vit_gpt2 import VitGpt2
from src.utils.errors import UserError
from tests.models.folders import save_captioner, save_encoder_and_decoder
from tests.models.random_captioner import captioner, packed, random_captions, random_states, separate_nll
from tests.models.test_combinations import fit, make, reload


def adapted(kind="gpt2", **settings):
    model = captioner(kind)
    choose_trainable(model, "lora", 1)
    add_lora(model, settings)
    return model


def trained(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def randomize(model, scale=0.3):
    """Change every adapter from its initial value, where it changes nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight += scale * torch.randn(weight.shape, generator=generator)


def test_encoder_and_decoder_get_adapters_cross_attention_included():
    model = adapted()
    names = trained(model)
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert {name.split(".lora_")[0].removeprefix("decoder.transformer.h.0.") for name in names
            if name.startswith("decoder.transformer.h.0.")} == {
        "attn.c_attn", "crossattention.c_attn", "crossattention.q_attn"
    }  # fmt: skip
    assert sum(name.startswith("encoder.") for name in names) == 2 * 2 * 2  # blocks, q and v, A and B
    assert model.decoder.transformer.h[0].attn.c_attn.lora_A["default"].weight.shape == (8, 32)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta", "bart"])
def test_packed_captions_have_the_loss_of_separate_ones_adapted_and_merged(kind):
    plain, model = captioner(kind), adapted(kind)
    rows, states = random_captions(), random_states()
    before = separate_nll(plain, states, rows)
    torch.testing.assert_close(packed_loss(model, states, packed(rows))[0], before, rtol=1e-5, atol=1e-4)
    randomize(model)
    assert not is_plain_gpt2(model.decoder)
    nll, _ = packed_loss(model, states, packed(rows))
    torch.testing.assert_close(nll, separate_nll(model, states, rows), rtol=1e-5, atol=1e-4)
    assert abs(nll - before) > 1e-3
    merge_adapter(model)
    assert set(model.state_dict()) == set(plain.state_dict())
    assert is_plain_gpt2(model.decoder) == (kind == "gpt2")
    merged, _ = packed_loss(model, states, packed(rows))
    torch.testing.assert_close(merged, nll, rtol=1e-5, atol=1e-4)


def test_chosen_blocks_alone_may_have_adapters():
    names = trained(adapted(layers_to_transform=[1]))
    assert {name.split(".")[3] for name in names if name.startswith("decoder")} == {"1"}
    assert {name.split(".")[2] for name in names if name.startswith("encoder")} == {"1"}


def test_a_run_trains_adapters_alone_and_its_checkpoint_holds_no_more(flickr_folder, tmp_path):
    folder = save_captioner(tmp_path / "base", "vit", "gpt2", 16)
    module, data = make(str(folder), flickr_folder, train="lora", lora={"lora_dropout": 0.1})
    module.train()
    training = {name for name, m in module.model.named_modules() if m.training}
    assert training
    assert all(".lora_" in name or name == "enc_to_dec_proj" for name in training)
    assert module.captioner.depth == 0
    fit(module, data, tmp_path)
    trainer, updated = fit(module, data, tmp_path)  # A changes once B is no longer zero
    assert updated == set(module.trained_weights())
    assert "enc_to_dec_proj.weight" in updated

    other, _ = make(str(folder), flickr_folder, train="lora")
    content = reload(trainer, other, tmp_path)
    metadata, names = content[METADATA_KEY], {name.partition("network.")[2] for name in content["state_dict"]}
    assert names == updated  # nothing else is in the file
    assert metadata["base_sha256"] == VitGpt2(str(folder)).base_sha256  # without adapters too
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        loss = module.eval().captioner(batch)[0]
        torch.testing.assert_close(other.eval().captioner(batch)[0], loss)


def test_the_base_is_scored_without_its_adapters(flickr_folder, tmp_path):
    folder = save_captioner(tmp_path / "base", "vit", "gpt2")
    module, data = make(str(folder), flickr_folder, train="lora")
    plain, _ = make(str(folder), flickr_folder)
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        expected = plain.captioner(batch)[0]
        torch.testing.assert_close(module.captioner(batch)[0], expected)
        randomize(module.model)
        tuned = module.captioner(batch)[0]
        assert abs(tuned - expected) > 1e-3
        with module.captioner.base_weights():
            torch.testing.assert_close(module.captioner(batch)[0], expected)
        torch.testing.assert_close(module.captioner(batch)[0], tuned)


def test_captions_are_those_of_the_merged_model(flickr_folder, tmp_path):
    folder = save_captioner(tmp_path / "base", "deit", "gpt2")
    module, data = make(str(folder), flickr_folder, train="lora", lora={"layers_to_transform": [2]})
    assert module.captioner.depth == 2
    batch = next(iter(data.val_dataloader()))
    randomize(module.model, 1.0)
    captions = module.generate(batch)
    merge_adapter(module.model)
    assert module.generate(batch) == captions
    module.model.save_pretrained(tmp_path / "merged")
    again = VisionEncoderDecoderModel.from_pretrained(tmp_path / "merged")
    ids = again.generate(batch.pixel_values)  # as the saved generation settings say
    assert [module.processor.decode(row[1:]) for row in ids] == captions


def test_newly_initialized_cross_attention_trains_whole_beside_adapters(flickr_folder, tmp_path):
    sources = save_encoder_and_decoder(tmp_path, "vit", "gpt2")
    module, _ = make(None, flickr_folder, from_encoder_decoder=sources, train="lora")
    names = set(module.trained_weights())
    assert "decoder.transformer.h.0.crossattention.q_attn.weight" in names
    assert not any("crossattention" in name and "lora" in name for name in names)
    assert any("attn.c_attn.lora_A" in name for name in names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 4}, r"argument 'rank'; expected settings of peft\.LoraConfig such as r=8"),
        ({"r": 0}, "r is 1 or more"),
        ({"lora_dropout": 1.0}, "lora_dropout from 0 to below 1"),
        ({"layers_to_transform": [7]}, r"model\.lora=.*7.*; expected settings of peft\.LoraConfig"),
        ({"target_modules": ["q_attn"]}, "no layer of the encoder's .*k_proj.* is among"),
    ],
)
def test_a_wrong_setting_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        adapted(**settings)
