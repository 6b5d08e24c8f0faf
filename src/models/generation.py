"""Generate captions from encoder states with transformers' own search; the caller runs the encoder once.

B images, K beams of an image, R = B * K rows, T tokens, P patches, D width, V vocabulary.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers import VisionEncoderDecoderModel as Model
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from src.datamodule.processor import Processor
from src.models.kernels.beam_search import decode_step, prefill
from src.models.kernels.gpt2 import compute_dtype
from src.models.loss import can_use_cpu_kernels, project_states


class Hypothesis(NamedTuple):
    """A caption that the search ended with; score: mean log-probability of its tokens, the EOS included, in nats."""

    caption: str
    score: float


class Samples(NamedTuple):
    """Sampled captions; ids: i64 (B,K,T), padded after EOS; lengths: i64 (B,K), tokens up to and with EOS, if any."""

    ids: Tensor
    lengths: Tensor


def generation_config(processor: Processor, max_length: int, num_beams: int, **settings: Any) -> GenerationConfig:
    """Build the generation settings of scoring, n-best lists and export; nothing of the base's own is kept."""
    ids = {"eos_token_id": processor.eos_id, "pad_token_id": processor.pad_id}
    ids["decoder_start_token_id"] = processor.start_id
    return GenerationConfig(max_length=max_length, num_beams=num_beams, **{"do_sample": False, **ids, **settings})


def generate_captions(
    model: Model, processor: Processor, states: Tensor, max_length: int, num_beams: int, on_cpu: Any = None
) -> list[str]:
    """Generate one caption per image from encoder states (B,P,De); max_length counts the start; on_cpu: see loss.py."""
    settings = generation_config(processor, max_length, num_beams)
    ids = generate_ids(model, states, settings, on_cpu)
    return [processor.decode(row[1:]) for row in ids.tolist()]  # without the start token, which may be EOS


def generate_nbest(
    model: Model, processor: Processor, states: Tensor, max_length: int, num_beams: int
) -> list[list[Hypothesis]]:
    """Return the different captions that each image's beams ended with, best first, the first `generate_captions`'."""
    extra = {"num_return_sequences": num_beams, "return_dict_in_generate": True, "output_scores": True}
    found = generate_ids(model, states, generation_config(processor, max_length, num_beams, **extra))
    texts = [processor.decode(row[1:]) for row in found.sequences.tolist()]  # B * K
    if num_beams > 1:
        scores = found.sequences_scores
    else:  # the mean log-probability of the tokens up to the first EOS
        tokens = found.sequences[:, 1:]  # (B,T), without the start token
        log_probs = torch.stack(found.scores, 1).float().log_softmax(-1).gather(-1, tokens[:, :, None])[:, :, 0]
        counted = _counted(tokens, processor.eos_id)
        scores = (log_probs * counted).sum(1) / counted.sum(1)
    nbest: list[dict[str, float]] = [{} for _ in states]
    for number, (text, score) in enumerate(zip(texts, scores.tolist(), strict=True)):
        nbest[number // num_beams].setdefault(text, score)
    return [[Hypothesis(text, score) for text, score in best.items()] for best in nbest]


def sample_captions(
    model: Model,
    processor: Processor,
    states: Tensor,
    num_samples: int,
    max_length: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    on_cpu: bool | None = None,
) -> Samples:
    """Draw K = num_samples captions per image from encoder states (B,P,De), without start token: T < max_length.

    One seed gives the same samples and leaves torch's generators as they were. The CPU kernels share cross-attention
    keys and values among the samples of an image and have no dropout; elsewhere the model should be in eval mode.
    """
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    settings = generation_config(processor, max_length, 1, num_return_sequences=num_samples, **sampling)
    with torch.random.fork_rng([states.device] if states.is_cuda else []):
        torch.manual_seed(seed)
        ids = generate_ids(model, states, settings, on_cpu)[:, 1:].unflatten(0, (len(states), num_samples))
    return Samples(ids, _counted(ids, processor.eos_id).sum(-1))


def _counted(tokens: Tensor, eos_id: int) -> Tensor:
    """Whether a token of (...,T), without start, has no EOS before it: bool (...,T)."""
    ends = (tokens == eos_id).long()
    return ends.cumsum(-1) - ends == 0


@torch.no_grad()
def generate_ids(model: Model, states: Tensor, settings: GenerationConfig, on_cpu: bool | None = None) -> Any:
    """What `model.generate` returns for encoder states (B,P,De): ids i64 (B, <= max_length), start token first."""
    # transformers fills what the settings leave open from the model's own: a shallow view has no others than these.
    view: Any = copy.copy(model)
    view.generation_config = settings
    if not (can_use_cpu_kernels(model, states.device) if on_cpu is None else on_cpu):
        outputs = BaseModelOutput(last_hidden_state=states)
        return view.generate(encoder_outputs=outputs, generation_config=settings)
    view.__class__ = _PackedDecoderModel
    states = project_states(model, states).to(compute_dtype(model.decoder, states.device.type))
    with torch.autocast(states.device.type, enabled=False):
        beams = max(settings.num_beams, settings.num_return_sequences or 1)  # samples of an image are beams here
        cache = prefill(model.decoder, states, beams, settings.max_length)
        # transformers reads the number of images here and repeats what it finds for each beam
        outputs = BaseModelOutput(last_hidden_state=states.new_zeros(len(states), 1, 1))
        return view.generate(encoder_outputs=outputs, past_key_values=cache, generation_config=settings)


class _PackedDecoderModel(Model):
    """The model for transformers' search, with the decoder step of `models/kernels`."""

    # transformers looks for the name encoder_outputs
    def forward(
        self, decoder_input_ids: Tensor, past_key_values: Any, encoder_outputs: Any = None, **kwargs: Any
    ) -> Seq2SeqLMOutput:
        """Logits (R,1,V) of the token after the last of decoder_input_ids, i64 (R, any)."""
        logits = decode_step(self.decoder, decoder_input_ids[:, -1], past_key_values)
        return Seq2SeqLMOutput(logits=logits[:, None], past_key_values=past_key_values)
