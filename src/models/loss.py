"""Summed cross-entropy of packed captions under any VisionEncoderDecoderModel, and its mean per token.

R rows of captions, T tokens of a row, M tokens in all, B images, P patches, D width, V vocabulary.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel
from transformers import VisionEncoderDecoderModel as Model

from src.datamodule.collate import CaptionBatch
from src.models.kernels.gpt2 import compute_dtype, is_plain_gpt2, packed_hidden
from src.models.kernels.linear import cross_entropy, linear_cross_entropy
from src.utils.errors import UserError


def packed_loss(
    model: Model,
    states: Tensor,
    batch: CaptionBatch,
    on_cpu: bool | None = None,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy in nats, f32 (), of the M labels under encoder states (B,P,De), and M, i64 ().

    on_cpu: whether `models/kernels` take the place of transformers' decoder; None where they can.
    label_smoothing, weights (M): see `cross_entropy`.
    """
    decoder: Any = model.decoder
    states = project_states(model, states)  # (B,P,D)
    if batch.row_image is not None:
        states = states.index_select(0, batch.row_image)  # (R,P,D)
    labels = batch.labels.flatten()[batch.token_index]  # (M)
    count = torch.full((), batch.num_tokens, device=labels.device)  # filled there: a copy would wait for the device
    if can_use_cpu_kernels(model, states.device) if on_cpu is None else on_cpu:
        hidden = packed_hidden(decoder, states, batch)
        return linear_cross_entropy(hidden, decoder.lm_head, labels, label_smoothing, weights), count
    if splits_head(decoder, states.device):
        hidden = packed_output(decoder.base_model, states, batch).to(compute_dtype(decoder, states.device.type))
        return linear_cross_entropy(hidden, decoder.lm_head, labels, label_smoothing, weights), count
    takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
    logits = packed_output(decoder, states, batch) if takes_positions else row_logits(decoder, states, batch)
    return cross_entropy(logits, labels, label_smoothing, weights), count


def can_use_cpu_kernels(model: Model, device: torch.device) -> bool:
    """Whether `models/kernels` can compute this decoder's loss and captions: a plain GPT-2 on a CPU."""
    return device.type == "cpu" and is_plain_gpt2(model.decoder)


def splits_head(decoder: Any, device: torch.device) -> bool:
    """Whether the loss takes hidden states of transformers' decoder, not its logits: GPT-2 on a GPU, uncompiled."""
    plain = isinstance(decoder, GPT2LMHeadModel) and type(decoder.lm_head) is nn.Linear
    return plain and device.type != "cpu" and not torch.compiler.is_compiling()


def project_states(model: Model, states: Tensor) -> Tensor:
    """(B,P,De) -> (B,P,D): what `VisionEncoderDecoderModel.forward` does between encoder and decoder."""
    projection = getattr(model, "enc_to_dec_proj", None)
    return states if projection is None else projection(states)


def packed_output(decoder: Any, states: Tensor, batch: CaptionBatch) -> Tensor:
    """Logits (M,V) of the tokens from transformers' own decoder, or hidden states (M,D) from its base model.

    states: (R,P,D).
    """
    blocked, lowest = ~batch.tokens.mask, torch.finfo(states.dtype).min  # (R,1,T,T)
    embeddings: Any = getattr(decoder.base_model, "embeddings", None)
    # RoBERTa and the like number positions from behind the padding id, the others from 0.
    after_padding = hasattr(embeddings, "create_position_ids_from_input_ids")
    output = decoder(
        input_ids=batch.input_ids,
        attention_mask=torch.zeros_like(blocked, dtype=states.dtype).masked_fill(blocked, lowest),
        position_ids=batch.position_ids + (embeddings.padding_idx + 1 if after_padding else 0),
        encoder_hidden_states=states,
        use_cache=False,
    )[0]
    return output.flatten(0, 1)[batch.token_index]


def row_logits(decoder: Any, states: Tensor, batch: CaptionBatch) -> Tensor:
    """The same from one row per caption, for decoders that number positions themselves (BART, TrOCR)."""
    position = batch.position_ids.flatten()[batch.token_index]  # (M)
    row = (position == 0).cumsum(0) - 1  # a caption begins where positions do
    input_ids = batch.input_ids.new_zeros(batch.caption_shape)
    input_ids[row, position] = batch.input_ids.flatten()[batch.token_index]
    mask = torch.zeros_like(input_ids).index_put_((row, position), torch.ones_like(row))
    packed_row = torch.zeros_like(input_ids[:, 0])  # of each caption
    packed_row[row] = batch.token_index // batch.input_ids.shape[1]
    settings = {"attention_mask": mask, "encoder_hidden_states": states[packed_row], "use_cache": False}
    return decoder(input_ids=input_ids, **settings).logits[row, position]


class TokenMean:
    """Mean nats per token over batches and processes: sums in tensors, so that no step waits for the device."""

    def __init__(self) -> None:
        self.sums = torch.zeros(2)

    def update(self, nll: Tensor, num_tokens: Tensor) -> None:
        """Add a batch: its summed nats () and its number of tokens ()."""
        dtype = torch.float32 if nll.device.type == "mps" else torch.float64
        batch = torch.stack([nll.detach().to(dtype), num_tokens.to(dtype)])
        self.sums = self.sums.to(batch) + batch

    def sync(self, trainer: Any) -> list[float]:
        """Sum nats and tokens over all processes."""
        if trainer.world_size == 1:
            return self.sums.tolist()
        sums = self.sums.to(trainer.strategy.root_device, copy=True)  # a copy: reduction overwrites it
        return trainer.strategy.reduce(sums, reduce_op="sum").tolist()

    def compute(self, trainer: Any) -> float:
        """Nats per token over all processes; NaN over no tokens."""
        nats, tokens = self.sync(trainer)
        return nats / tokens if tokens else float("nan")


class FiniteCheck:
    """Find the first step whose loss or gradient is not finite, in tensors: they are read by `check` alone.

    failed: f32 (), 1 from that step on; as `found_inf` of a fused optimizer it lets no later step change weights.
    """

    def __init__(self) -> None:
        self.failed: Tensor | None = None
        self._values: list[tuple[str, int, Sequence[str], Tensor]] = []  # since the last check

    def add(self, name: str, step: int, value: Tensor, own: Tensor | None = None, images: Sequence[str] = ()) -> None:
        """Add a value () of all processes, and this one's `own` value on its `images`."""
        values = torch.stack([value.detach(), (value if own is None else own).detach()]).float()  # (2)
        failed = values[0].isfinite().logical_not().float()
        self.failed = failed if self.failed is None else torch.maximum(self.failed, failed)
        self._values.append((name, step, images, values))

    def check(self) -> None:
        """Read what was added since the last check; UserError with the first value that is not finite."""
        added, self._values = self._values, []
        read = torch.stack([values for *_, values in added]).tolist() if added else []
        for (name, step, images, _), (value, own) in zip(added, read, strict=True):
            if not math.isfinite(value):
                where = "another process" if math.isfinite(own) else ", ".join(images)
                raise UserError(
                    f"the {name} of step {step} is {value}{f' on the images {where}' if images else ''}; expected a "
                    "finite number; the weights were not changed: look at the images, or start a new run with a lower "
                    "model.optimizer.lr or trainer.precision=32-true"
                )
