"""A checkpoint is loaded whole or rejected in one line that names the setting and the error."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from src.models.pretrained import load_captioner, load_image_processor
from src.utils.errors import UserError
from tests.models.folders import save_encoder_and_decoder, save_inputs


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return save_encoder_and_decoder(tmp_path_factory.mktemp("sources"), "vit", "gpt2")


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "captioner")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def assert_rejected(match, *args, **settings):
    with pytest.raises(UserError, match=match) as caught:
        load_captioner(*args, **settings)
    assert "\n" not in str(caught.value)


def test_a_folder_loads_its_weights_and_has_no_revisions(tiny_checkpoint):
    found = load_captioner(str(tiny_checkpoint), revision="v9")
    assert (found.base_id, found.new_weights) == (str(tiny_checkpoint), frozenset())
    assert not found.model.training
    saved = load_file(tiny_checkpoint / "model.safetensors")
    assert torch.equal(found.model.decoder.transformer.wpe.weight, saved["decoder.transformer.wpe.weight"])


def test_no_checkpoint_and_another_architecture_are_rejected(sources):
    assert_rejected("model.checkpoint is empty; expected a hub id or a folder", None)
    assert_rejected("is a 'gpt2' model; expected a VisionEncoderDecoderModel", sources["decoder"])


def test_missing_weights_are_rejected_and_a_pooler_may_be_missing(folder):
    change_weights(folder, lambda weights: [weights.pop(n) for n in list(weights) if "pooler" in n])
    load_captioner(str(folder))
    change_weights(folder, lambda weights: [weights.pop(n) for n in list(weights) if "h.1.mlp" in n])
    assert_rejected(r"lacks 4 weights of its config \(decoder\.transformer\.h\.1\.mlp", str(folder))


def test_weights_of_another_shape_or_not_finite_are_rejected(folder):
    name, other = "encoder.layernorm.bias", "decoder.transformer.wpe.weight"
    change_weights(folder, lambda weights: weights[other].view(-1)[7:8].fill_(float("nan")))
    assert_rejected(r"its weights are not finite \(decoder\.transformer\.wpe\.weight\)", str(folder))
    change_weights(folder, lambda weights: weights.update({name: weights[name][:-1].clone()}))
    assert_rejected(r"lacks 1 weights .*encoder\.layernorm\.bias, \.\.\.\) or has them in another shape", str(folder))


@pytest.mark.parametrize(
    ("names", "what"),
    [(("tokenizer.json", "tokenizer_config.json"), "tokenizer"), (("preprocessor_config.json",), "image processor"),
     (("model.safetensors",), "model")],
)  # fmt: skip
def test_a_missing_file_is_named(folder, names, what):
    for name in names:
        (folder / name).unlink()
    assert_rejected(f"its {what} cannot be loaded .*; expected a folder in save_pretrained's", str(folder))


def test_new_weights_of_a_joined_model_depend_on_the_seed(sources):
    found = load_captioner(from_encoder_decoder=sources, seed=3)
    assert found.base_id == f"{sources['encoder']} + {sources['decoder']}"
    assert found.new_weights
    assert all("cross" in name for name in found.new_weights)
    again, other = (load_captioner(from_encoder_decoder=sources, seed=seed) for seed in (3, 4))
    random = max(found.new_weights, key=lambda name: found.model.get_parameter(name).std())
    assert torch.equal(found.model.get_parameter(random), again.model.get_parameter(random))
    assert not torch.equal(found.model.get_parameter(random), other.model.get_parameter(random))


def test_sources_that_cannot_be_joined_are_rejected(sources, tmp_path):
    missing = "expected an encoder, a decoder and no revision"
    assert_rejected(missing, from_encoder_decoder={"encoder": sources["encoder"]})
    assert_rejected(missing, None, "v2", sources)
    assert_rejected(missing, from_encoder_decoder=sources | {"decoder": ""})

    def rejected_with(match, side, folder):
        assert_rejected(match, from_encoder_decoder=sources | {side: str(folder)})

    rejected_with(r"model\.from_encoder_decoder\.decoder=.*does not exist", "decoder", tmp_path / "gone")
    incomplete = shutil.copytree(sources["encoder"], tmp_path / "incomplete")
    change_weights(incomplete, lambda weights: [weights.pop(n) for n in list(weights) if "layer.0" in n])
    rejected_with(r"encoder=.* lacks \d+ weights .*; expected a whole checkpoint", "encoder", incomplete)
    # A cross-attention that is there would bring weights for another encoder.
    load_captioner(from_encoder_decoder=sources).model.decoder.save_pretrained(tmp_path / "decoder")
    save_inputs(tmp_path / "decoder", None, "gpt2")
    rejected_with("takes no new cross-attention; expected a text decoder", "decoder", tmp_path / "decoder")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    CLIPVisionModel(CLIPVisionConfig(image_size=48, patch_size=8, **shape)).save_pretrained(tmp_path / "clip")
    save_inputs(tmp_path / "clip", "vit", None)
    rejected_with("gives 32 x 32 pixels and the encoder takes 48 x 48", "encoder", tmp_path / "clip")


def test_load_image_processor_takes_folders_with_special_characters(tiny_checkpoint, tmp_path):
    for name in ("a@b", "a + b"):
        folder = shutil.copytree(tiny_checkpoint, tmp_path / name)
        assert load_image_processor(str(folder)).size == {"height": 32, "width": 32}
    assert load_image_processor(f"{tiny_checkpoint} + {tmp_path}").size == {"height": 32, "width": 32}
