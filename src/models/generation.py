"""Captions from encoder states: transformers' own search, the encoder run once by the caller.

B images, K beams of an image, R = B * K rows, P patches, D width, V vocabulary.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from src.models.kernels.beam_search import BeamCache, next_logits, open_beams
from src.models.kernels.gpt2 import compute_dtype, is_plain_gpt2
from src.models.loss import project_states

if TYPE_CHECKING:
    from src.datamodule.processor import Processor


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A caption that the search ended with; score: mean log-probability of its tokens in nats, 0 is certain.

    The end-of-caption token counts where the caption has one, as in the loss.
    """

    caption: str
    score: float


def generate_captions(
    model: VisionEncoderDecoderModel,
    preprocessing: "Processor",
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


def generate_nbest(
    model: VisionEncoderDecoderModel,
    preprocessing: "Processor",
    encoder_states: Tensor,
    max_length: int,
    num_beams: int,
) -> list[list[Hypothesis]]:
    """The captions that the beams of each image ended with, best first; the first is `generate_captions`'.

    encoder_states: (B,P,De). At most num_beams an image: token ids that read the same are one caption.
    """
    settings = _settings(preprocessing, max_length, num_beams)
    settings.update(num_return_sequences=num_beams, return_dict_in_generate=True, output_scores=True)
    found = _generate(model, encoder_states, settings)
    texts = [preprocessing.decode(row[1:]) for row in found.sequences.tolist()]  # B * K
    scores = found.sequences_scores if num_beams > 1 else _greedy_scores(found, preprocessing.eos_id)
    alternatives: list[list[Hypothesis]] = []
    for start in range(0, len(texts), num_beams):
        best: dict[str, float] = {}
        for text, score in zip(texts[start:][:num_beams], scores[start:].tolist(), strict=False):
            best.setdefault(text, score)
        alternatives.append([Hypothesis(text, score) for text, score in best.items()])
    return alternatives


def _greedy_scores(found: Any, eos_id: int) -> Tensor:
    """f32 (B): mean log-probability of what the search without beams said, up to the first EOS."""
    said = found.sequences[:, 1:, None]  # (B,T,1), without the start token
    logits = torch.stack(found.scores, 1).float()  # (B,T,V)
    nats = logits.log_softmax(-1).gather(-1, said).squeeze(-1)  # (B,T)
    ends = (said.squeeze(-1) == eos_id).long()
    spoken = ends.cumsum(1) - ends == 0  # no EOS before it
    return (nats * spoken).sum(1) / spoken.sum(1)


def generate_ids(
    model: VisionEncoderDecoderModel,
    preprocessing: "Processor",
    encoder_states: Tensor,
    max_length: int,
    num_beams: int,
) -> Tensor:
    """Token ids i64 (B, <= max_length), start token first, padded behind EOS: those of `model.generate()`."""
    return _generate(model, encoder_states, _settings(preprocessing, max_length, num_beams))


def _settings(preprocessing: "Processor", max_length: int, num_beams: int) -> GenerationConfig:
    return GenerationConfig(
        max_length=max_length,
        num_beams=num_beams,
        do_sample=False,
        decoder_start_token_id=preprocessing.start_id,
        eos_token_id=preprocessing.eos_id,
        pad_token_id=preprocessing.pad_id,
    )


@torch.no_grad()
def _generate(model: VisionEncoderDecoderModel, encoder_states: Tensor, settings: GenerationConfig) -> Any:
    """What `model.generate` gives for encoder states (B,P,De)."""
    if not is_plain_gpt2(model.decoder):
        outputs = BaseModelOutput(last_hidden_state=encoder_states)
        return _search(model, encoder_outputs=outputs, generation_config=settings)
    face = copy.copy(model)  # shares every weight; only what a step computes is another's
    face.__class__ = _CaptionSearch
    device = encoder_states.device.type
    states = project_states(model, encoder_states).to(compute_dtype(model.decoder, device))
    with torch.autocast(device, enabled=False):
        cache = open_beams(model.decoder, states, settings.num_beams, settings.max_length)
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
