"""Summed cross-entropy of packed captions under any VisionEncoderDecoderModel.

R rows of captions, T tokens of a row, M tokens in all, B images, P patches, D width, V vocabulary.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import VisionEncoderDecoderModel

from src.datamodule.collate import CaptionBatch
from src.models.kernels.cross_entropy import linear_cross_entropy
from src.models.kernels.gpt2 import is_plain_gpt2, packed_hidden


def packed_loss(
    model: VisionEncoderDecoderModel,
    encoder_states: Tensor,
    batch: CaptionBatch,
    cpu_kernels: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every labelled token, the same number as that of one row per caption.

    encoder_states: (B,P,De), the encoder's last hidden states; projected to the decoder's width where needed.
    cpu_kernels: `models/kernels` instead of transformers' decoder; None where they can be used.
    Returns: summed cross-entropy in nats, f32 (), and the number of labelled tokens, i64 ().
    """
    decoder: Any = model.decoder
    states = project_states(model, encoder_states)  # (B,P,D)
    if batch.row_image is not None:
        states = states.index_select(0, batch.row_image)  # (R,P,D)
    labels = batch.labels.flatten()[batch.token_index]  # (M)
    count = torch.tensor(batch.num_tokens, device=labels.device)
    if can_use_cpu_kernels(model, states.device) if cpu_kernels is None else cpu_kernels:
        hidden = packed_hidden(decoder, states, batch)  # (M,D)
        return linear_cross_entropy(hidden, decoder.lm_head, labels), count
    takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
    logits = packed_logits(decoder, states, batch) if takes_positions else row_logits(decoder, states, batch)
    return nn.functional.cross_entropy(logits.float(), labels, reduction="sum"), count


def can_use_cpu_kernels(model: VisionEncoderDecoderModel, device: torch.device) -> bool:
    """Whether `models/kernels` can compute this decoder's loss and captions: a plain GPT-2 on a CPU."""
    return device.type == "cpu" and is_plain_gpt2(model.decoder)


def project_states(model: VisionEncoderDecoderModel, encoder_states: Tensor) -> Tensor:
    """(B,P,De) -> (B,P,D): what `VisionEncoderDecoderModel.forward` does between encoder and decoder."""
    projection = getattr(model, "enc_to_dec_proj", None)
    return encoder_states if projection is None else projection(encoder_states)


def packing_mask(caption_index: Tensor) -> Tensor:
    """Block-diagonal causal mask of packed captions.

    caption_index: i64 (R,T), which caption a token belongs to, -1 on padding.
    Returns: bool (R,1,T,T), True where the row's token attends to the column's: same caption, not later.
    A padding token attends to itself alone, so that no row of the softmax is empty.

    Example: captions of 2 and 1 tokens and one pad, [0, 0, 1, -1], give the rows 1000, 1100, 0010, 0001.
    """
    length = caption_index.shape[1]
    same = caption_index[:, :, None] == caption_index[:, None, :]  # (R,T,T)
    causal = torch.ones(length, length, dtype=torch.bool, device=caption_index.device).tril()
    alone = torch.eye(length, dtype=torch.bool, device=caption_index.device)
    return ((same & causal & (caption_index >= 0)[:, None, :]) | alone)[:, None]


def packed_logits(decoder: Any, states: Tensor, batch: CaptionBatch) -> Tensor:
    """Logits (M,V) of the tokens from transformers' own decoder; states (R,P,D)."""
    allowed = packing_mask(batch.caption_index)
    lowest = torch.finfo(states.dtype).min
    mask = torch.zeros_like(allowed, dtype=states.dtype).masked_fill(~allowed, lowest)  # added to the scores
    logits = decoder(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=batch.position_ids + position_offset(decoder),
        encoder_hidden_states=states,
        use_cache=False,
    ).logits
    return logits.flatten(0, 1)[batch.token_index]


def row_logits(decoder: Any, states: Tensor, batch: CaptionBatch) -> Tensor:
    """The same from one row per caption, for decoders that number positions themselves (BART, TrOCR)."""
    position = batch.position_ids.flatten()[batch.token_index]  # (M)
    row = (position == 0).cumsum(0) - 1  # a caption begins where positions do
    input_ids = batch.input_ids.new_zeros(batch.caption_shape)
    input_ids[row, position] = batch.input_ids.flatten()[batch.token_index]
    mask = torch.zeros_like(input_ids).index_put_((row, position), torch.ones_like(row))
    packed_row = torch.zeros_like(input_ids[:, 0])  # of each caption
    packed_row[row] = batch.token_index // batch.input_ids.shape[1]
    states = states[packed_row]
    settings = {"attention_mask": mask, "encoder_hidden_states": states, "use_cache": False}
    return decoder(input_ids=input_ids, **settings).logits[row, position]


def position_offset(decoder: Any) -> int:
    """The position id of a first token: RoBERTa and the like begin after the padding id, the others at 0."""
    embeddings = getattr(decoder.base_model, "embeddings", None)
    if embeddings is not None and hasattr(embeddings, "create_position_ids_from_input_ids"):
        return embeddings.padding_idx + 1
    return 0
