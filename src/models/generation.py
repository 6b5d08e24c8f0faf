"""Generate captions from encoder states with transformers' own search; the caller runs the encoder once.

B images, K beams of an image, R = B * K rows, T tokens, P patches, D width, V vocabulary.
"""

import copy
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from transformers import GenerationConfig
from transformers import VisionEncoderDecoderModel as Model
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from src.datamodule.processor import Processor
from src.models.kernels.beam_search import decode_step, prefill
from src.models.kernels.gpt2 import compute_dtype
from src.models.loss import can_use_cpu_kernels, project_states
from src.utils.config_check import GENERATION, type_error
from src.utils.errors import UserError

DEFAULT_LENGTH = 32  # tokens of a generated caption, start token included


class Hypothesis(NamedTuple):
    """A caption that the search ended with; score: mean log-probability of its tokens, the EOS included, in nats."""

    caption: str
    score: float


class Samples(NamedTuple):
    """Sampled captions; ids: i64 (B,K,T), padded after EOS; lengths: i64 (B,K), tokens up to and with EOS, if any."""

    ids: Tensor
    lengths: Tensor


def resolve_generation(
    settings: Mapping[str, Any], processor: Processor, key: str = "model.generation."
) -> dict[str, Any]:
    """Check the settings of `model.generation`; null or missing ones are set here or left to transformers' defaults.

    key: stands before a setting's name in the UserError for one that is unknown, of another type or out of range.
    """
    found = {"max_length": min(DEFAULT_LENGTH, processor.max_positions), "num_beams": 4, "seed": 0}
    found |= {name: value for name, value in settings.items() if value is not None}
    rules = GENERATION | {"max_length": Annotated[int, Field(ge=2, le=processor.max_positions)]}
    for name, value in found.items():
        expected = type_error(value, rules[name]) if name in rules else f"one of {', '.join(rules)} as its name"
        if expected:
            raise UserError(f"{key}{name}={value!r}; expected {expected}; set {key}{name}")
    if found.get("min_length", 0) > found["max_length"]:
        pair = f"{key}min_length={found['min_length']} with {key}max_length={found['max_length']}"
        raise UserError(f"{pair}; expected at most as many; set {key}min_length")
    return found


def generation_config(processor: Processor, settings: Mapping[str, Any], **more: Any) -> GenerationConfig:
    """Build transformers' settings from those of `resolve_generation`; nothing of the base's own is kept.

    Sampling draws from the whole vocabulary; its seed is kept as an attribute.
    """
    values = {"do_sample": False, **settings, **more}
    values |= {"num_beams": 1, "top_k": 0} if values["do_sample"] else {}
    unused = {"temperature", "top_p", "seed"} if not values["do_sample"] else set[str]()
    unused |= {"length_penalty"} if values["num_beams"] == 1 else set()
    values = {name: value for name, value in values.items() if name not in unused}
    ids = {"eos_token_id": processor.eos_id, "pad_token_id": processor.pad_id}
    return GenerationConfig(**values, **ids, decoder_start_token_id=processor.start_id)


def generate_captions(
    model: Model, processor: Processor, states: Tensor, settings: Mapping[str, Any], on_cpu: bool | None = None
) -> list[str]:
    """Generate one caption per image from encoder states (B,P,De); on_cpu: see loss.py."""
    ids = generate_ids(model, states, generation_config(processor, settings), on_cpu)
    return [processor.decode(row[1:]) for row in ids.tolist()]  # without the start token, which may be EOS


def generate_nbest(
    model: Model, processor: Processor, states: Tensor, settings: Mapping[str, Any]
) -> list[list[Hypothesis]]:
    """Return the different captions that each image's beams ended with, best first, the first `generate_captions`'.

    With do_sample, as many captions are drawn as there are beams, most likely first.
    """
    extra = {"num_return_sequences": settings["num_beams"], "return_dict_in_generate": True}
    config = generation_config(processor, settings, **extra, output_scores=True, output_logits=True)
    found = generate_ids(model, states, config)
    tokens = found.sequences[:, 1:]  # (R,T), without the start token
    counted = _counted(tokens, processor.eos_id)
    if config.num_beams > 1:  # the sum over a power of the length
        scores = found.sequences_scores * counted.sum(1) ** (settings.get("length_penalty", 1.0) - 1)
    else:
        log_probs = torch.stack(found.logits, 1).float().log_softmax(-1).gather(-1, tokens[:, :, None])[:, :, 0]
        scores = (log_probs * counted).sum(1) / counted.sum(1)
    texts = [processor.decode(row) for row in tokens.tolist()]
    nbest: list[dict[str, float]] = [{} for _ in states]
    for number, (text, score) in enumerate(zip(texts, scores.tolist(), strict=True)):
        nbest[number // settings["num_beams"]].setdefault(text, score)
    found = [[Hypothesis(text, score) for text, score in best.items()] for best in nbest]
    return [sorted(row, key=lambda one: -one.score) for row in found] if config.do_sample else found


def sample_captions(
    model: Model,
    processor: Processor,
    states: Tensor,
    num_samples: int,
    max_length: int,
    seed: int = 0,
    on_cpu: bool | None = None,
) -> Samples:
    """Draw K = num_samples captions per image from encoder states (B,P,De), without start token: T < max_length.

    One seed gives the same samples and leaves torch's generators as they were. The CPU kernels share cross-attention
    keys and values among the samples of an image and have no dropout; elsewhere the model should be in eval mode.
    """
    settings = {"max_length": max_length, "do_sample": True, "seed": seed}
    config = generation_config(processor, settings, num_return_sequences=num_samples)
    ids = generate_ids(model, states, config, on_cpu)[:, 1:].unflatten(0, (len(states), num_samples))
    return Samples(ids, _counted(ids, processor.eos_id).sum(-1))


def _counted(tokens: Tensor, eos_id: int) -> Tensor:
    """Whether a token of (...,T), without start, has no EOS before it: bool (...,T)."""
    ends = (tokens == eos_id).long()
    return ends.cumsum(-1) - ends == 0


@torch.no_grad()
def generate_ids(model: Model, states: Tensor, settings: GenerationConfig, on_cpu: bool | None = None) -> Any:
    """What `model.generate` returns for encoder states (B,P,De): ids i64 (B, <= max_length), start token first.

    Sampling starts from its seed and leaves torch's generators as they were.
    """
    with torch.random.fork_rng([states.device] if states.is_cuda else [], enabled=settings.do_sample):
        if settings.do_sample:
            torch.manual_seed(settings.seed)  # type: ignore[attr-defined]
        return _generate(model, states, settings, on_cpu)


def _generate(model: Model, states: Tensor, settings: GenerationConfig, on_cpu: bool | None) -> Any:
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
