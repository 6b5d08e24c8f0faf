"""The profile of a step: every operator in one kind, shares that add up."""

import pytest
import torch

from benchmarks.step_profile import KINDS, OTHER, cached_batch, kind_of, make_step, measure


@pytest.mark.parametrize(
    ("operator", "shape", "kind"),
    [
        ("mkldnn::_linear_pointwise", [8, 16], "matrix products"),
        ("aten::addmm", [8, 16], "matrix products"),
        ("aten::bmm", [8, 16], "attention"),
        ("aten::_softmax_backward_data", [96, 20, 197], "attention"),
        ("aten::_softmax", [96, 20, 197], "attention"),
        ("aten::_softmax", [128, 50257], "softmax over the vocabulary"),
        ("aten::_log_softmax", [950, 50257], "softmax over the vocabulary"),
        ("aten::copy_", [8, 16], "copies and fills"),
        ("aten::native_layer_norm", [8, 16], "norms and activations"),
        ("aten::add_", [8, 16], "sums"),
        ("aten::_fused_adamw_", [8, 16], "optimizer"),
        ("_FrozenLinear", [8, 16], OTHER),
    ],
)
def test_an_operator_has_one_kind(operator, shape, kind):
    assert kind_of(operator, shape) == kind


def test_a_step_is_measured_and_moves_no_weight(tiny_checkpoint, flickr_folder):
    settings = {
        "checkpoint": str(tiny_checkpoint), "data_dir": str(flickr_folder), "images": 2, "precision": "fp32",
    }  # fmt: skip
    module, batch = cached_batch(settings)
    before = {name: weight.clone() for name, weight in module.trained_weights().items()}
    found = measure(make_step(module, batch, bf16=False), steps=2)
    assert set(found["shares"]) == {*KINDS, OTHER}
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"]["matrix products"] > 0
    with torch.no_grad():
        nats, tokens = module.sum_nll_and_num_tokens(batch)
    assert found["loss"] == pytest.approx(float(nats / tokens))
    assert all(torch.equal(weight, before[name]) for name, weight in module.trained_weights().items())
