"""Parameter groups and learning-rate schedules."""

import inspect
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from pytorch_lightning import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.utils.errors import UserError


def parameter_groups(weights: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Group the trained weights: matrices decay; biases and layer norms (one dimension) do not."""
    trained = [weight for weight in weights if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in trained if weight.ndim > 1]},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def linear_with_warmup(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.05, per_epoch: bool = False
) -> LambdaLR:
    """Raise the rate over the first `warmup` fraction of `total_steps`, then lower it linearly to 0.

    Step s of a warm-up of n has the rate s / n, epoch e has (e + 1) / n: no epoch trains at 0.
    """
    return LambdaLR(
        optimizer, partial(_factor, total_steps, round(warmup * total_steps), per_epoch, "linear")
    )


def cosine_with_warmup(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.05, per_epoch: bool = False
) -> LambdaLR:
    """Raise the rate as `linear_with_warmup` does, then lower it to 0 in a half cosine."""
    return LambdaLR(
        optimizer, partial(_factor, total_steps, round(warmup * total_steps), per_epoch, "cosine")
    )


def _factor(total: int, warmup: int, per_epoch: bool, decay: str, step: int) -> float:
    """The fraction of the peak rate in a step or epoch, both from 0."""
    if step < warmup:
        return (step + per_epoch) / warmup
    if decay == "linear":
        return max(0.0, (total - step) / max(1, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def make_scheduler(optimizer: Optimizer, settings: Mapping[str, Any], trainer: Trainer) -> dict[str, Any]:
    """Build Lightning's scheduler config from `model.lr_scheduler`.

    A factory with the parameter `total_steps` gets the number of its changes in the run: optimizer steps, or epochs
    where `interval` is epoch (then `per_epoch` is True), divided by `frequency`.

    Raises:
        UserError: training without an end.
    """
    settings = dict(settings)
    factory = settings.pop("scheduler")
    parameters = inspect.signature(factory).parameters
    if "total_steps" not in parameters:
        return {"scheduler": factory(optimizer), **settings}
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise UserError(
            "trainer.max_epochs=-1 with a schedule; expected an end; set trainer.max_epochs or "
            "model.lr_scheduler=null"
        )
    arguments: dict[str, Any] = {}
    if settings.get("interval") == "epoch":
        per_epoch = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        steps = -(-int(steps) // max(per_epoch, 1))
        arguments = {"per_epoch": True} if "per_epoch" in parameters else {}
    total = max(int(steps) // settings.get("frequency", 1), 1)
    return {"scheduler": factory(optimizer, total_steps=total, **arguments), **settings}
