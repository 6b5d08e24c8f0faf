"""Parameter groups and learning-rate schedules."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from pytorch_lightning import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from src.utils.errors import UserError


def parameter_groups(weights: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Group the trained weights: matrices decay; biases and layer norms (one dimension) do not."""
    trained = [weight for weight in weights if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in trained if weight.ndim > 1]},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def linear_with_warmup(optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> LambdaLR:
    """Rise from 0 over the first `warmup` fraction of `total_steps`, then fall linearly to 0."""
    return get_linear_schedule_with_warmup(optimizer, round(warmup * total_steps), total_steps)


def cosine_with_warmup(optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> LambdaLR:
    """Rise from 0 over the first `warmup` fraction of `total_steps`, then fall to 0 in a half cosine."""
    return get_cosine_schedule_with_warmup(optimizer, round(warmup * total_steps), total_steps)


def make_scheduler(optimizer: Optimizer, settings: Mapping[str, Any], trainer: Trainer) -> dict[str, Any]:
    """Build Lightning's scheduler config from `model.lr_scheduler`.

    A factory with the parameter `total_steps` gets the number of its changes in the run: optimizer steps, or epochs
    where `interval` is epoch, divided by `frequency`.

    Raises:
        UserError: training without an end.
    """
    settings = dict(settings)
    factory = settings.pop("scheduler")
    if "total_steps" not in inspect.signature(factory).parameters:
        return {"scheduler": factory(optimizer), **settings}
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise UserError(
            "trainer.max_epochs=-1 with a schedule; expected an end; set trainer.max_epochs or "
            "model.lr_scheduler=null"
        )
    if settings.get("interval") == "epoch":
        per_epoch = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        steps = -(-int(steps) // max(per_epoch, 1))
    total = max(int(steps) // settings.get("frequency", 1), 1)
    return {"scheduler": factory(optimizer, total_steps=total), **settings}
