"""Parameter groups and learning-rate schedules."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup


def parameter_groups(weights: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Matrices decay; biases and layer norms (one dimension) do not."""
    trained = [weight for weight in weights if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in trained if weight.ndim > 1]},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def linear_with_warmup(optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> LambdaLR:
    """Rise from 0 over the first `warmup` share of `total_steps` optimizer steps, then fall to 0 in a line."""
    return get_linear_schedule_with_warmup(optimizer, round(warmup * total_steps), total_steps)


def cosine_with_warmup(optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> LambdaLR:
    """Rise from 0 over the first `warmup` share of `total_steps` optimizer steps, then fall to 0 in a cosine."""
    return get_cosine_schedule_with_warmup(optimizer, round(warmup * total_steps), total_steps)
