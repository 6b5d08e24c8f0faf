"""Captions from encoder states: transformers' own search, the encoder run once by the caller.

B images, P patches, D width.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import GenerationConfig, VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput

if TYPE_CHECKING:
    from src.datamodule.preprocessing import Preprocessing


def generate_captions(
    model: VisionEncoderDecoderModel,
    preprocessing: "Preprocessing",
    encoder_states: Tensor,
    max_length: int,
    num_beams: int,
) -> list[str]:
    """One caption per image; max_length in tokens, the start token included.

    encoder_states: (B,P,De), the encoder's last hidden states.
    """
    ids = generate_ids(model, preprocessing, encoder_states, max_length, num_beams)
    return [
        preprocessing.decode(row[1:]) for row in ids.tolist()
    ]  # without the start token, which may equal EOS


@torch.no_grad()
def generate_ids(
    model: VisionEncoderDecoderModel,
    preprocessing: "Preprocessing",
    encoder_states: Tensor,
    max_length: int,
    num_beams: int,
) -> Tensor:
    """Token ids i64 (B, <= max_length), start token first, padded behind EOS: those of `model.generate()`."""
    settings = GenerationConfig(
        max_length=max_length,
        num_beams=num_beams,
        do_sample=False,
        decoder_start_token_id=preprocessing.start_id,
        eos_token_id=preprocessing.eos_id,
        pad_token_id=preprocessing.pad_id,
    )
    states = BaseModelOutput(last_hidden_state=encoder_states)
    return model.generate(encoder_outputs=states, generation_config=settings)
