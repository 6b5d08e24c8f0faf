"""A checkpoint is loaded whole or refused in one line that names the setting and what is wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from src.models.pretrained import load_captioner, load_image_processor
from src.utils.errors import UserError
from tests.models.folders import save_halves, save_inputs


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    return save_halves(tmp_path_factory.mktemp("halves"), "vit", "gpt2")


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "captioner")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def told(match, *args, **settings):
    with pytest.raises(UserError, match=match) as caught:
        load_captioner(*args, **settings)
    assert "\n" not in str(caught.value)


def test_what_the_folder_holds_is_what_is_loaded(tiny_checkpoint):
    found = load_captioner(str(tiny_checkpoint), revision="v9")  # a folder has no revisions
    assert (found.base_id, found.new_weights) == (str(tiny_checkpoint), frozenset())
    assert not found.model.training
    saved = load_file(tiny_checkpoint / "model.safetensors")
    assert torch.equal(found.model.decoder.transformer.wpe.weight, saved["decoder.transformer.wpe.weight"])


def test_without_a_checkpoint_there_is_nothing_to_load():
    told("model.checkpoint is empty; expected a hub id or a folder", None)
    told("model.checkpoint is empty", "")


def test_another_architecture_is_told(halves):
    told(
        r"is a 'gpt2' model; expected a VisionEncoderDecoderModel .*; set model.checkpoint=",
        halves["decoder"],
    )


def test_weights_that_are_missing_are_told_and_a_pooler_may_be(folder):
    change_weights(folder, lambda weights: [weights.pop(n) for n in list(weights) if "pooler" in n])
    load_captioner(str(folder))
    change_weights(folder, lambda weights: [weights.pop(n) for n in list(weights) if "h.1.mlp" in n])
    told(r"lacks 4 weights of its config \(decoder\.transformer\.h\.1\.mlp", str(folder))


def test_weights_of_another_shape_are_told(folder):
    def cut(weights):
        weights["encoder.layernorm.bias"] = weights["encoder.layernorm.bias"][:-1].clone()

    change_weights(folder, cut)
    told(r"encoder\.layernorm\.bias has the shape \(31,\), its config has \(32,\)", str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, value):
    change_weights(
        folder, lambda weights: weights["decoder.transformer.wpe.weight"].view(-1)[7:8].fill_(value)
    )
    told(r"its weights are not finite \(decoder\.transformer\.wpe\.weight\)", str(folder))


def test_weights_without_a_place_are_noted(folder, caplog):
    caplog.set_level("INFO")
    change_weights(folder, lambda weights: weights.update({"decoder.extra.weight": torch.zeros(2)}))
    load_captioner(str(folder))
    assert "1 weights are not used (decoder.extra.weight, ...)" in caplog.text


@pytest.mark.parametrize(
    ("names", "part"),
    [(("tokenizer.json", "tokenizer_config.json"), "tokenizer"), (("preprocessor_config.json",), "image processor"),
     (("model.safetensors",), "model")],
)  # fmt: skip
def test_a_part_that_is_missing_is_named(folder, names, part):
    for name in names:
        (folder / name).unlink()
    told(f"its {part} cannot be loaded .*; expected a folder in save_pretrained's layout", str(folder))


def test_halves_are_joined_by_new_weights_that_the_seed_decides(halves):
    found = load_captioner(from_encoder_decoder=halves, seed=3)
    assert found.base_id == f"{halves['encoder']} + {halves['decoder']}"
    assert found.new_weights
    assert all("cross" in name for name in found.new_weights)
    again, other = (load_captioner(from_encoder_decoder=halves, seed=seed) for seed in (3, 4))
    drawn = max(found.new_weights, key=lambda name: found.model.get_parameter(name).std())
    assert torch.equal(found.model.get_parameter(drawn), again.model.get_parameter(drawn))
    assert not torch.equal(found.model.get_parameter(drawn), other.model.get_parameter(drawn))


def test_halves_that_cannot_be_joined_are_told(halves, tmp_path):
    told(
        "expected an encoder, a decoder and no revision", from_encoder_decoder={"encoder": halves["encoder"]}
    )
    told("expected an encoder, a decoder and no revision", None, "v2", halves)
    told("expected an encoder, a decoder", from_encoder_decoder=halves | {"decoder": ""})
    gone = halves | {"decoder": str(tmp_path / "gone")}
    told(r"model\.from_encoder_decoder\.decoder=.*does not exist", from_encoder_decoder=gone)
    incomplete = shutil.copytree(halves["encoder"], tmp_path / "incomplete")
    change_weights(incomplete, lambda weights: [weights.pop(n) for n in list(weights) if "layer.0" in n])
    told(r"model\.from_encoder_decoder\.encoder=.* lacks \d+ weights .*; expected a whole image encoder",
         from_encoder_decoder=halves | {"encoder": str(incomplete)})  # fmt: skip


def test_a_decoder_that_has_a_cross_attention_is_told(halves, tmp_path):
    """It would bring weights for another encoder, none of them new."""
    joined = load_captioner(from_encoder_decoder=halves)
    joined.model.decoder.save_pretrained(tmp_path)
    save_inputs(tmp_path, None, "gpt2")
    assert json.loads((tmp_path / "config.json").read_text())["add_cross_attention"]
    told(r"takes no new cross-attention; expected a text decoder such as gpt2",
         from_encoder_decoder=halves | {"decoder": str(tmp_path)})  # fmt: skip


def test_an_encoder_for_pictures_of_another_size_than_its_processors_is_told(halves, tmp_path):
    config = CLIPVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
                              image_size=48, patch_size=8)  # fmt: skip
    CLIPVisionModel(config).save_pretrained(tmp_path)
    save_inputs(tmp_path, "vit", None)
    told("the image processor gives 32 x 32 pixels and the encoder takes 48 x 48",
         from_encoder_decoder=halves | {"encoder": str(tmp_path)})  # fmt: skip


def test_the_load_image_processor_a_folder_with_an_odd_name(tiny_checkpoint, tmp_path):
    for name in ("a@b", "a + b"):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / name)
        assert load_image_processor(str(folder)).size == {"height": 32, "width": 32}
    assert load_image_processor(f"{tiny_checkpoint} + {tmp_path}").size == {"height": 32, "width": 32}
