"""Summed nats of packed captions under any VisionEncoderDecoderModel.

B images, T packed tokens of an image, P patches, D width, V vocabulary.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import VisionEncoderDecoderModel

from src.models.packed_attention import packing_mask
from src.models.packed_gpt2 import is_plain_gpt2, packed_hidden
from src.models.vocabulary_loss import vocabulary_nats


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
    states = project_states(model, encoder_states)
    labelled = batch.labels != -100
    if is_plain_gpt2(model.decoder):
        tokens = batch.input_ids, batch.position_ids, batch.caption_index
        hidden = packed_hidden(model.decoder, states, *tokens)
        return vocabulary_nats(
            hidden, model.decoder.lm_head, batch.labels[batch.caption_index >= 0]
        ), labelled.sum()
    logits = decoder_logits(model.decoder, states, batch)[labelled]
    nats = nn.functional.cross_entropy(logits.float(), batch.labels[labelled], reduction="sum")
    return nats, labelled.sum()


def project_states(model: VisionEncoderDecoderModel, encoder_states: Tensor) -> Tensor:
    """(B,P,De) -> (B,P,D): what `VisionEncoderDecoderModel.forward` does between its two halves."""
    projection = getattr(model, "enc_to_dec_proj", None)
    return encoder_states if projection is None else projection(encoder_states)


def decoder_logits(decoder: Any, states: Tensor, batch: PackedTokens) -> Tensor:
    """Logits (B,T,V) of the packed tokens from transformers' own decoder."""
    mask = packing_mask(batch.caption_index)
    if decoder.config._attn_implementation == "eager":  # adds its mask, where the others select by it
        mask = torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, torch.finfo(states.dtype).min)
    return decoder(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=batch.position_ids + position_offset(decoder),
        encoder_hidden_states=states,
        use_cache=False,
    ).logits


def position_offset(decoder: Any) -> int:
    """The position id of a first token: RoBERTa and its kin begin after the padding id, the others at 0."""
    embeddings = getattr(decoder.base_model, "embeddings", None)
    if embeddings is not None and hasattr(embeddings, "create_position_ids_from_input_ids"):
        return embeddings.padding_idx + 1
    return 0
