"""Optimizers with named parameter groups, and learning-rate schedules."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.utils.errors import UserError


def make_optimizer(
    factory: Callable[..., Optimizer], weights: Mapping[str, nn.Parameter], encoder_lr_factor: float = 1.0
) -> Optimizer:
    """Call `factory` with the trained weights in named groups: matrices decay, biases and layer norms do not.

    weights: by their names in the network. encoder_lr_factor: the encoder's learning rate over that of the others;
    other than 1, its weights form groups of their own.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, weight in weights.items():
        side = "" if encoder_lr_factor == 1 else "encoder_" if name.startswith("encoder.") else "decoder_"
        groups.setdefault(f"{side}{'matrices' if weight.ndim > 1 else 'vectors'}", []).append(weight)
    settings = {name: {"weight_decay": 0.0} if name.endswith("vectors") else {} for name in sorted(groups)}
    optimizer = factory([{"name": name, "params": groups[name], **more} for name, more in settings.items()])
    for group in optimizer.param_groups:
        group["lr"] *= encoder_lr_factor if group["name"].startswith("encoder") else 1
    return optimizer


def linear_with_warmup(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.05, per_epoch: bool = False, cosine: bool = False
) -> LambdaLR:
    """Raise the rate over the first `warmup` fraction of `total_steps`, then lower it to 0, or in a half cosine.

    Step s of a warm-up of n has the rate s / n, epoch e has (e + 1) / n: no epoch trains at 0.
    """
    rising = round(warmup * total_steps)
    falling = max(1, total_steps - rising)

    def factor(step: int) -> float:
        if step < rising:
            return (step + per_epoch) / rising
        if cosine:
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / falling)))
        return max(0.0, (total_steps - step) / falling)

    return LambdaLR(optimizer, factor)


def make_scheduler(optimizer: Optimizer, settings: Mapping[str, Any], trainer: Trainer) -> dict[str, Any]:
    """Build Lightning's scheduler config from `model.lr_scheduler`: a factory, interval, frequency, monitor.

    A factory with the parameter `total_steps` gets the number of its changes in the run; UserError without an end.
    """
    factory = settings["scheduler"]
    parameters = inspect.signature(factory).parameters
    arguments: dict[str, Any] = {}
    if "total_steps" in parameters:
        steps = trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError("trainer.max_epochs=-1 with a schedule; expected an end; set trainer.max_epochs")
        if settings.get("interval") == "epoch":
            per_epoch = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
            steps = -(-int(steps) // max(per_epoch, 1))
            arguments = {"per_epoch": True} if "per_epoch" in parameters else {}
        arguments["total_steps"] = max(int(steps) // settings.get("frequency", 1), 1)
    return {**settings, "scheduler": factory(optimizer, **arguments)}
