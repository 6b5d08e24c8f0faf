"""Captions from encoder states: transformers' own search, the encoder run once by the caller.

B images, K beams of an image, R = B * K rows, P patches, D width, V vocabulary.
"""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from src.models.loss import project_states
from src.models.packed_decoding import BeamCache, next_logits, open_beams
from src.models.packed_gpt2 import compute_dtype, is_plain_gpt2

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
    texts = (row[1:] for row in ids.tolist())  # without the start token, which may be EOS
    return [preprocessing.decode(text) for text in texts]


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
    if not is_plain_gpt2(model.decoder):
        outputs = BaseModelOutput(last_hidden_state=encoder_states)
        return _search(model, encoder_outputs=outputs, generation_config=settings)
    face = copy.copy(model)  # shares every weight; only what a step computes is another's
    face.__class__ = _CaptionSearch
    device = encoder_states.device.type
    states = project_states(model, encoder_states).to(compute_dtype(model.decoder, device))
    with torch.autocast(device, enabled=False):
        cache = open_beams(model.decoder, states, num_beams, max_length)
        # transformers reads the number of images here and repeats what it finds for each beam
        outputs = BaseModelOutput(last_hidden_state=states.new_zeros(len(states), 1, 1))
        return _search(face, encoder_outputs=outputs, past_key_values=cache, generation_config=settings)


def _search(model: Any, **settings: Any) -> Tensor:
    return model.generate(**settings)


class _CaptionSearch(VisionEncoderDecoderModel):
    """The model as transformers' search sees it, with GPT-2's step of our own."""

    def forward(
        self,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: BeamCache | None = None,
        **kwargs: object,
    ) -> Seq2SeqLMOutput:
        """Logits (R,1,V) behind the last of decoder_input_ids, i64 (R, any)."""
        assert decoder_input_ids is not None
        assert past_key_values is not None
        logits = next_logits(self.decoder, decoder_input_ids[:, -1], past_key_values)
        return Seq2SeqLMOutput(logits=logits[:, None], past_key_values=past_key_values)
