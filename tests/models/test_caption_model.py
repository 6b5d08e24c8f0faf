"""CaptionModel: one switch for its kernels, generation settings of its own, frozen modules that stay in eval mode."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from src.models.caption_model import CaptionModel
from src.models.pretrained import load_captioner
from src.utils.errors import UserError
from tests.models.random_captioner import captioner as network
from tests.models.random_captioner import packed, random_captions, random_states
from tests.models.test_generation import Digits


def model(**settings):
    return CaptionModel(network(settings.pop("decoder", "gpt2")), Digits(), **settings)


def test_reference_and_cpu_kernels_have_one_loss_gradient_and_tokens():
    batch, states = packed([*random_captions(), [[k, k] for k in range(2, 40)] * 4]), random_states(4)
    assert batch.row_image is not None  # the last image has more captions than one row takes
    found = []
    for kernels in ("reference", "cpu"):
        one = model(kernels=kernels, generation={"max_length": 10, "num_beams": 3}).train()
        nll, tokens = one.loss(states, batch)
        weights = [weight for name, weight in one.trained_weights().items() if name.startswith("decoder")]
        gradients = torch.autograd.grad(nll / tokens, weights)
        found.append((nll, tokens, gradients, one.eval().generate(states)))
    for one, other in zip(found[0][:3], found[1][:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert found[0][3] == found[1][3]


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
def test_the_loss_of_each_image_is_that_of_its_captions_alone(kernels):
    rows = [*random_captions(), [[k, k] for k in range(2, 40)] * 4]
    one, states = model(kernels=kernels).eval(), random_states(4)
    nll, tokens = one.image_losses(states, packed(rows))
    for image, captions in enumerate(rows):
        expected = one.loss(states[image : image + 1], packed([captions]))
        torch.testing.assert_close((nll[image], tokens[image]), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
def test_losses_of_images_are_not_rounded_under_autocast(kernels):
    one, states, batch = model(kernels=kernels).eval(), random_states(3), packed(random_captions())
    with torch.autocast("cpu", torch.bfloat16):
        nll, tokens = one.image_losses(states, batch)
        torch.testing.assert_close((nll.sum(), tokens.sum()), one.loss(states, batch), rtol=1e-6, atol=0)


@pytest.mark.parametrize("decoder", ["gpt2", "bert"])
def test_a_frozen_decoder_in_bf16_has_the_loss_gradient_and_captions_of_autocast(decoder):
    one, states, batch = model(decoder=decoder, kernels="reference"), random_states(3), packed(random_captions())
    found = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            nll, _ = one.train().loss(states, batch)
            weights = [weight for name, weight in one.trained_weights().items() if name.startswith("decoder")]
            found.append((nll, *torch.autograd.grad(nll, weights)))
            captions = one.eval().generate(states)
        found.append(captions)
        one.store_frozen_in_bf16()
    assert all(map(torch.equal, found[0], found[2]))
    assert found[1] == found[3]
    assert torch.bfloat16 in {weight.dtype for weight in one.network.parameters()}
    assert {weight.dtype for weight in one.trained_weights().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ({}, "cpu", True),
        ({}, "cuda", False),
        ({"kernels": "reference"}, "cpu", False),
        ({"decoder": "bert"}, "cpu", False),
        ({"train": "lora"}, "cpu", False),
    ],
)
def test_auto_takes_the_cpu_kernels_for_a_plain_gpt2_on_a_cpu(settings, device, expected):
    assert model(**settings).uses_cpu_kernels(torch.device(device)) == expected
    if not expected and "kernels" not in settings:
        with pytest.raises(UserError, match=rf"model\.kernels=cpu with \w+ on {device}; expected a plain"):
            model(**settings, kernels="cpu").prepare(torch.device(device))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 40), ("num_return_sequences", 2), ("no_repeat_ngram_size", 1), ("length_penalty", -5.0),
        ("early_stopping", True), ("repetition_penalty", 5.0), ("forced_bos_token_id", 5), ("min_length", 9),
        ("use_cache", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kernels", ["cpu", "reference"])
def test_generation_settings_of_the_base_do_not_act(name, value, kernels):
    states = random_states(4)
    expected = model(kernels=kernels, generation={"max_length": 10, "num_beams": 3}).generate(states)
    changed = network()
    setattr(changed.generation_config, name, value)
    found = CaptionModel(changed, Digits(), kernels=kernels, generation={"max_length": 10, "num_beams": 3})
    assert found.generate(states) == expected
    exported = changed.generation_config  # what save_pretrained writes
    assert getattr(exported, name) != value
    assert (exported.max_length, exported.num_beams, exported.do_sample) == (10, 3, False)


def test_unknown_kernels_are_named():
    with pytest.raises(UserError, match=r"model\.kernels='fast'; expected auto, reference, cpu"):
        model(kernels="fast")


def test_frozen_modules_stay_in_eval_mode_while_training():
    training = {name for name, m in model().train().network.named_modules() if m.training}
    assert training
    assert all(".1" in name or ".2" in name for name in training)  # of 2 blocks and of 3


def test_base_weights_apply_inside_the_context_alone():
    one = model()
    base = {name: weight.detach().clone() for name, weight in one.trained_weights().items()}
    with torch.no_grad():
        for weight in one.trained_weights().values():
            weight.add_(1)
    with one.base_weights():
        assert all(torch.equal(weight, base[name]) for name, weight in one.trained_weights().items())
    assert all(torch.equal(weight, base[name] + 1) for name, weight in one.trained_weights().items())


def loaded(checkpoint, **settings):
    """A CaptionModel of a folder, and a batch of pixels."""
    found = load_captioner(str(checkpoint))
    batch = packed([[[1]], [[2]]])
    batch.transform = found.processor.image
    batch.pixels = torch.randint(256, (2, 3, batch.transform.height, batch.transform.width), dtype=torch.uint8)
    return CaptionModel(found.model, found.processor, **settings), batch


def test_cached_features_of_any_precision_give_the_encoder_states(tiny_checkpoint):
    one, batch = loaded(tiny_checkpoint)
    expected = one.network.encoder(batch.pixel_values).last_hidden_state
    features = one.backbone_features(batch.pixel_values)
    assert not features.requires_grad
    for dtype, autocast, tolerance in (
        (torch.float64, False, 1e-5), (torch.bfloat16, False, 0.05), (torch.bfloat16, True, 0.1),
    ):  # fmt: skip
        batch.features = features.to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            states = one.encode(batch)
        assert states.requires_grad
        torch.testing.assert_close(states, expected, atol=tolerance, rtol=tolerance, check_dtype=False)


@pytest.mark.slow
def test_compiled_blocks_give_the_same_loss_under_the_same_names(tiny_checkpoint, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    one, batch = loaded(tiny_checkpoint, compile=True)
    assert compiled == list(one.network.encoder.layers)
    monkeypatch.undo()
    names, expected = list(one.network.state_dict()), one.encode(batch)
    for block in compiled:
        block.compile(backend="aot_eager")  # all of torch.compile but the compiler of the machine
    with torch.no_grad():
        torch.testing.assert_close(one.encode(batch), expected)
    assert list(one.network.state_dict()) == names


@pytest.mark.slow
def test_all_behind_the_backbone_compiles_without_breaks_into_few_graphs(tiny_checkpoint, monkeypatch):
    counter = CompileCounterWithBackend("eager")  # needs no compiler of the machine
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter, fullgraph=True))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: None)
    one, batch = loaded(tiny_checkpoint, compile=True, kernels="reference")
    pixels = {"transform": batch.transform, "pixels": batch.pixels}
    for captions in ([[[1]], [[2]]], [[[1] * 9], [[2], [3, 4]]], [[[5] * 20], [[2]]], [[[5] * 20] * 3, [[2] * 9]]):
        batch = replace(packed(captions), **pixels)
        nll, tokens = one(batch)
        expected, count = one.loss(one.encode(batch), batch)
        torch.testing.assert_close(nll, expected)
        assert tokens == count
    assert counter.frame_count <= 2
