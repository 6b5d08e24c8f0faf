"""Cross-entropy over a vocabulary, chunk by chunk, so that the logits of all tokens never exist at once.

N labelled tokens, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from src.datamodule.collate import ROW_MULTIPLE
from src.models.kernels.linear import PackedWeight, onednn_linear, prepack

CHUNK = 256  # tokens whose logits exist at a time: 51 MB of fp32 for GPT-2's vocabulary


def linear_cross_entropy(hidden: Tensor, head: nn.Linear, labels: Tensor) -> Tensor:
    """Summed cross-entropy in nats, f32 (), of labels i64 (N) under the head's logits of hidden (N,D).

    With a frozen head the gradient is computed in the forward pass, chunk by chunk; a head that trains uses autograd
    and keeps its logits.
    """
    if head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad):
        bias = None if head.bias is None else head.bias.to(hidden.dtype)
        logits = nn.functional.linear(hidden, head.weight.to(hidden.dtype), bias)
        return nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    packed = prepack(head, head.weight, hidden.dtype)
    return _ChunkedCrossEntropy.apply(hidden, packed, head.bias, labels)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, packed: PackedWeight, bias: Tensor | None, labels: Tensor
    ) -> Tensor:
        bias = None if bias is None else bias.to(hidden.dtype)
        nll = torch.zeros((), device=hidden.device)
        dhidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), CHUNK):
            chunk = slice(start, start + CHUNK)
            label = labels[chunk, None]
            padding = -len(label) % ROW_MULTIPLE
            logits = onednn_linear(nn.functional.pad(hidden[chunk], (0, 0, 0, padding)), packed.forward, bias)
            probabilities = torch.softmax(logits, 1, dtype=torch.float32)  # (<=CHUNK,V)
            # log(sum(exp(logits))) from the likeliest token, whose probability is never lost to rounding
            log_sum = logits.amax(1, keepdim=True).float() - probabilities.amax(1, keepdim=True).log()
            nll += (log_sum[: len(label)] - logits[: len(label)].gather(1, label)).sum()
            if dhidden is not None:
                probabilities[: len(label)].scatter_add_(1, label, probabilities.new_full(label.shape, -1.0))
                dhidden[chunk] = onednn_linear(probabilities.to(logits.dtype), packed.backward)[: len(label)]
        ctx.save_for_backward(dhidden)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (dhidden,) = ctx.saved_tensors
        return dhidden * grad, None, None, None
