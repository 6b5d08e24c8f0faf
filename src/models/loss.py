"""Summed nats of packed captions under any VisionEncoderDecoderModel.

B images, T packed tokens of an image, P patches, D width, V vocabulary.
"""

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import VisionEncoderDecoderModel

from src.models.kernels.attention import packing_mask
from src.models.kernels.cross_entropy import linear_cross_entropy
from src.models.kernels.gpt2 import is_plain_gpt2, packed_hidden


class PackedTokens(Protocol):
    """What the loss reads of a batch: all i64 (B,T); caption_index -1 and labels -100 on padding."""

    input_ids: Tensor
    position_ids: Tensor
    caption_index: Tensor
    labels: Tensor


def packed_loss(
    model: VisionEncoderDecoderModel, encoder_states: Tensor, batch: PackedTokens
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every labelled token, the same number as that of one row per caption.

    encoder_states: (B,P,De), the encoder's last hidden states; projected to the decoder's width where needed.
    Returns: summed nats f32 (), and the number of labelled tokens i64 ().
    """
    decoder: Any = model.decoder
    states = project_states(model, encoder_states)
    labels = batch.labels[batch.caption_index >= 0]
    if is_plain_gpt2(decoder):
        hidden = packed_hidden(decoder, states, batch.input_ids, batch.position_ids, batch.caption_index)
        return linear_cross_entropy(hidden, decoder.lm_head, labels), torch.tensor(
            len(labels), device=labels.device
        )
    takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
    logits = packed_logits(decoder, states, batch) if takes_positions else row_logits(decoder, states, batch)
    nats = nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    return nats, torch.tensor(len(labels), device=labels.device)


def project_states(model: VisionEncoderDecoderModel, encoder_states: Tensor) -> Tensor:
    """(B,P,De) -> (B,P,D): what `VisionEncoderDecoderModel.forward` does between its two halves."""
    projection = getattr(model, "enc_to_dec_proj", None)
    return encoder_states if projection is None else projection(encoder_states)


def packed_logits(decoder: Any, states: Tensor, batch: PackedTokens) -> Tensor:
    """Logits of the tokens that are not padding, (number of them, V), from transformers' own decoder."""
    mask = packing_mask(batch.caption_index)
    if decoder.config._attn_implementation == "eager":  # adds its mask, where the others select by it
        mask = torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, torch.finfo(states.dtype).min)
    logits = decoder(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=batch.position_ids + position_offset(decoder),
        encoder_hidden_states=states,
        use_cache=False,
    ).logits
    return logits[batch.caption_index >= 0]


def row_logits(decoder: Any, states: Tensor, batch: PackedTokens) -> Tensor:
    """The same from one row per caption, for decoders that number positions themselves (BART, TrOCR)."""
    image, place = (batch.caption_index >= 0).nonzero(as_tuple=True)
    position = batch.position_ids[image, place]
    row = (position == 0).cumsum(0) - 1  # a caption begins where positions do
    shape = int(row[-1]) + 1, int(position.max()) + 1
    input_ids = torch.zeros(shape, dtype=torch.int64, device=row.device)
    input_ids[row, position] = batch.input_ids[image, place]
    logits = decoder(
        input_ids=input_ids,
        attention_mask=torch.zeros_like(input_ids).index_put_((row, position), torch.ones_like(row)),
        encoder_hidden_states=states[image[position == 0]],
        use_cache=False,
    ).logits
    return logits[row, position]


def position_offset(decoder: Any) -> int:
    """The position id of a first token: RoBERTa and its kin begin after the padding id, the others at 0."""
    embeddings = getattr(decoder.base_model, "embeddings", None)
    if embeddings is not None and hasattr(embeddings, "create_position_ids_from_input_ids"):
        return embeddings.padding_idx + 1
    return 0
