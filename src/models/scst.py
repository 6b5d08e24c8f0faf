"""Self-critical sequence training (Rennie et al., 2017): raise the probability of sampled captions that score well.

B images, K samples of an image, M tokens in all, P patches, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from src.datamodule.collate import CaptionBatch, pack_captions
from src.models.caption_model import CaptionModel
from src.models.generation import sample_captions

# (image ids (B), captions (B*K) of one image after another, whether each ended with EOS) -> rewards (B,K)
Reward = Callable[[Sequence[str], Sequence[str], Sequence[bool]], np.ndarray]


class SelfCritical:
    """The loss of sampled captions, each weighted by how much better it scores than the others of its image.

    num_samples: K, at least 2. cross_entropy_weight: share of the references' cross-entropy in the loss, 0 to 1.
    """

    def __init__(self, reward: Reward, num_samples: int, cross_entropy_weight: float) -> None:
        self.reward, self.num_samples, self.cross_entropy_weight = reward, num_samples, cross_entropy_weight

    def loss(self, captioner: CaptionModel, batch: CaptionBatch) -> tuple[Tensor, Tensor, float]:
        """Return the summed loss, f32 (), over sampled tokens, their number, i64 (), and the mean reward.

        Its gradient is that of the expected reward, negated, without active dropout: samples have none. torch's seed
        decides the samples.
        """
        processor, states = captioner.processor, captioner.encode(batch)  # (B,P,D)
        ids, lengths = sample_captions(
            captioner.network, processor, states.detach(), self.num_samples, captioner.generation["max_length"],
            seed=torch.initial_seed(), on_cpu=captioner.uses_cpu_kernels(states.device),
        )  # fmt: skip
        torch.clear_autocast_cache()  # weights cast without gradients, which older releases of torch use again
        rows = [row[:end] for row, end in zip(ids.flatten(0, 1).tolist(), lengths.flatten().tolist(), strict=True)]
        ended = [row[-1] == processor.eos_id for row in rows]
        rewards = self.reward(batch.image_ids, [processor.decode(row) for row in rows], ended)
        captions = [row[: len(row) - end] for row, end in zip(rows, ended, strict=True)]
        per_image = [captions[at : at + self.num_samples] for at in range(0, len(captions), self.num_samples)]
        packed = pack_captions(per_image, processor.start_id, processor.eos_id, processor.pad_id)
        weights = token_weights(advantages(rewards), list(map(len, captions)), ended).to(states.device)
        nll, _ = captioner.loss(states, replace(batch, **packed).to(states.device), weights)
        if self.cross_entropy_weight:
            reference_nll, count = captioner.loss(states, batch)
            nll = torch.lerp(nll, reference_nll * lengths.sum() / count, self.cross_entropy_weight)
        return nll, lengths.sum(), float(rewards.mean())


def advantages(rewards: np.ndarray) -> np.ndarray:
    """Rewards (B,K) less the mean reward of the other K-1 samples of the image (Luo, 2020)."""
    return rewards - (rewards.sum(1, keepdims=True) - rewards) / (rewards.shape[1] - 1)


def token_weights(values: np.ndarray, lengths: Sequence[int], ended: Sequence[bool]) -> Tensor:
    """Repeat values (B,K) of captions for their tokens and EOS: f32 (M); 0 for an EOS that was not sampled."""
    counts = np.add(lengths, 1)
    weights = np.repeat(values.ravel(), counts)
    weights[np.cumsum(counts) - 1] *= ended
    return torch.from_numpy(weights).float()
