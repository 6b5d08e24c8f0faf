"""The profile of a step: every operator in one kind, shares that add up."""

import pytest
import torch

from benchmarks.step_profile import KINDS, OTHER, cached_batch, kind_of, make_step, measure


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("aten::bmm", "attention"),
        ("aten::_softmax_backward_data", "attention"),
        ("aten::_log_softmax", "softmax over the vocabulary"),
        ("aten::copy_", "copies and fills"),
        ("aten::native_layer_norm", "norms and activations"),
        ("aten::add_", "sums"),
        ("aten::_fused_adamw_", "optimizer"),
        ("_FrozenLinear", OTHER),
    ],
)
def test_an_operator_has_one_kind(operator, kind):
    assert kind_of(operator) == kind


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
        nats, tokens = module.nats_and_tokens(batch)
    assert found["loss"] == pytest.approx(float(nats / tokens))
    assert all(torch.equal(weight, before[name]) for name, weight in module.trained_weights().items())
