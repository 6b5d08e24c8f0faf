"""Nats per token over many batches and processes: each token counts once."""

import torch
from pytorch_lightning import Trainer
from torch import Tensor


class TokenMean:
    """Sums of nats and of tokens in this process; plain numbers, so that a checkpoint can hold them."""

    def __init__(self) -> None:
        self.sums = [0.0, 0.0]

    def add(self, nats: Tensor, tokens: Tensor) -> None:
        """Count a batch: its summed nats () and its number of tokens ()."""
        self.sums = [self.sums[0] + nats.item(), self.sums[1] + tokens.item()]

    def everywhere(self, trainer: Trainer | None) -> list[float]:
        """Nats and tokens of all processes; every process has to call it."""
        if trainer is None or trainer.world_size == 1:
            return self.sums
        mine = torch.tensor(self.sums, dtype=torch.float64, device=trainer.strategy.root_device)
        return trainer.strategy.reduce(mine, reduce_op="sum").tolist()

    def take_over(self, sums: list[float], trainer: Trainer | None) -> None:
        """Go on from the sums of all processes, which rank 0 takes over as its own."""
        self.sums = list(sums) if trainer is None or trainer.is_global_zero else [0.0, 0.0]

    def value(self, trainer: Trainer | None) -> float:
        """Nats per token; NaN over no tokens. Every process has to call it."""
        nats, tokens = self.everywhere(trainer)
        return nats / tokens if tokens else float("nan")
