"""Mean cross-entropy per token over batches and processes: each token counts once."""

import torch
from pytorch_lightning import Trainer
from torch import Tensor


class TokenMean:
    """Sums of nats and tokens in this process, in tensors, so that no step waits for the device."""

    def __init__(self) -> None:
        self.sums = torch.zeros(2)

    def update(self, nll: Tensor, num_tokens: Tensor) -> None:
        """Add a batch: its summed nats () and its number of tokens ()."""
        dtype = torch.float32 if nll.device.type == "mps" else torch.float64
        batch = torch.stack([nll.detach().to(dtype), num_tokens.to(dtype)])
        self.sums = self.sums.to(batch) + batch

    def sync(self, trainer: Trainer | None) -> list[float]:
        """Sum nats and tokens over all processes; every process has to call it."""
        if trainer is None or trainer.world_size == 1:
            return self.sums.tolist()
        sums = self.sums.to(trainer.strategy.root_device, copy=True)  # a copy: reduction overwrites it
        return trainer.strategy.reduce(sums, reduce_op="sum").tolist()

    def compute(self, trainer: Trainer | None) -> float:
        """Nats per token over all processes; NaN over no tokens. Every process has to call it."""
        nats, tokens = self.sync(trainer)
        return nats / tokens if tokens else float("nan")

    def load(self, sums: list[float], trainer: Trainer | None) -> None:
        """Continue from the sums of all processes, which rank 0 counts as its own."""
        first = trainer is None or trainer.is_global_zero
        self.sums = torch.tensor(sums if first else [0.0, 0.0], dtype=torch.float64)
