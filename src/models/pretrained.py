"""A captioner as it comes from the hub or a folder: weights, tokenizer and image processor together."""

import difflib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

# Where a hub id has no safetensors file, transformers would ask a service to make one, from a thread of its own.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

import torch
import transformers
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    VisionEncoderDecoderModel,
)

from src.datamodule.preprocessing import Preprocessing
from src.models.special_tokens import make_preprocessing
from src.utils.errors import UserError
from src.utils.logging import get_logger

log = get_logger(__name__)
LOADING_FAULTS = (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError, EOFError,
                  SafetensorError, UnpicklingError)  # fmt: skip
HARMLESS = (
    ".attn.bias",
    ".attn.masked_bias",
    ".crossattention.bias",
    ".crossattention.masked_bias",
    "position_ids",
)
WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
FILES = {
    "config": ("config.json",),
    "tokenizer": ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model"),
    "image processor": ("preprocessor_config.json", "processor_config.json"),
}
KNOWN_ID = "nlpconnect/vit-gpt2-image-captioning"


@dataclass(frozen=True)
class PretrainedCaptioner:
    """What a checkpoint gives.

    model: fp32, in eval mode. base_id: hub id (with `@revision`) or folder.
    fresh: names of weights that the checkpoint did not hold, made at random here; they must train.
    """

    model: VisionEncoderDecoderModel
    preprocessing: Preprocessing
    base_id: str
    fresh: frozenset[str] = frozenset()


def load_captioner(
    checkpoint: str | None = None,
    revision: str | None = None,
    from_encoder_decoder: Mapping[str, str] | None = None,
    seed: int = 0,
) -> PretrainedCaptioner:
    """Load a VisionEncoderDecoder checkpoint, or join a pretrained encoder and decoder with new cross-attention.

    Args:
        checkpoint: a hub id or a folder in `save_pretrained`'s layout, of any age.
        revision: branch, tag or commit on the hub; a folder has none.
        from_encoder_decoder: `{"encoder": ..., "decoder": ...}`, each a hub id or a folder; then `checkpoint`
            is not read.
        seed: of the weights that are made at random here.

    Raises:
        UserError: nothing there, the hub out of reach, another architecture, a part missing or contradictory.
    """
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if from_encoder_decoder:
            return _join(from_encoder_decoder, revision)
        if not checkpoint:
            raise UserError(
                "model.checkpoint is empty; expected a hub id or a folder; set model.checkpoint=..."
            )
        source = find_source("model.checkpoint", checkpoint)
        model = _load_model(source, revision)
        tokenizer = _load("tokenizer", AutoTokenizer, source, revision)
        processor = _load("image processor", AutoImageProcessor, source, revision)
    base_id = f"{source}@{revision}" if revision and not Path(source).is_dir() else source
    return PretrainedCaptioner(model.eval(), make_preprocessing(model, tokenizer, processor), base_id)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep load reports and progress bars off the screen; what matters in them is checked here."""
    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def find_source(key: str, checkpoint: str) -> str:
    """The folder's absolute path, or the hub id as it is.

    Raises:
        UserError: it looks like a path and nothing is there.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return str(path.resolve())
    near = difflib.get_close_matches(path.name, _names(path.parent), n=1)
    in_folder = path.parent.is_dir() and (near or path.parent != Path())  # `gpt2` alone is an id of the hub
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1 or in_folder:
        hint = f" (did you mean {path.parent / near[0]}?)" if near else ""
        raise UserError(
            f"{key}={checkpoint!r} does not exist{hint}; expected a folder with config.json and weights or a "
            f"hub id such as {KNOWN_ID}; set {key}=..."
        )
    return checkpoint


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _load(
    part: str,
    kind: Any,
    source: str,
    revision: str | None = None,
    key: str = "model.checkpoint",
    **settings: Any,
) -> Any:
    """`kind.from_pretrained`, its many errors told in one line.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return kind.from_pretrained(source, revision=revision, trust_remote_code=False, **settings)
    except LOADING_FAULTS as error:
        raise UserError(_what_failed(part, source, revision, key, error)) from error


def _what_failed(part: str, source: str, revision: str | None, key: str, error: Exception) -> str:
    found = f"{key}={source!r}" + (f" at revision {revision!r}" if revision else "")
    causes = list(_causes(error))
    if any(isinstance(cause, UnpicklingError) for cause in causes):
        return (
            f"{found}: its weights are a pickle that holds more than tensors or is damaged, and was not loaded, since "
            "that could run code from it; expected plain weights; use a safetensors file from a source that you trust"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if Path(source).is_dir():
        if not any((Path(source) / name).exists() for name in FILES.get(part, WEIGHTS)):
            reason = f"there is no {' and no '.join(FILES.get(part, WEIGHTS))}"
        return (
            f"{found}: its {part} cannot be loaded ({reason}); expected a folder in save_pretrained's layout; "
            "write it again with its tokenizer and image processor"
        )
    hub = constants.ENDPOINT
    for kind, what, remedy in (
        (GatedRepoError, "is given to those alone who asked for it", "log in with `hf auth login`"),
        (RevisionNotFoundError, "has no such revision", "set model.revision=main"),
        (RepositoryNotFoundError, "is not there", "look at its name"),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return f"{found} {what} on {hub}; expected a model that you can read; {remedy}, or set {key}=<folder>"
    return (
        f"{found}: its {part} is neither in the local cache nor to be had from the hub ({_root(causes)}); expected a "
        f"connection or a folder; fetch {hub}/{source} on a machine that has one, with `hf download {source} "
        f"--local-dir <folder>`, copy the folder here and set {key}=<folder>"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _root(causes: list[BaseException]) -> str:
    return type(causes[-1]).__name__


def _load_model(source: str, revision: str | None) -> VisionEncoderDecoderModel:
    """The model, fp32.

    Raises:
        UserError: another architecture, or weights missing or of other shapes.
    """
    config = _load("config", AutoConfig, source, revision)
    if config.model_type != "vision-encoder-decoder":
        raise UserError(
            f"model.checkpoint={source!r} is a {config.model_type!r} model; expected a VisionEncoderDecoderModel "
            f"(an image encoder and a text decoder); set model.checkpoint={KNOWN_ID}"
        )
    model, report = _load_weights("model", VisionEncoderDecoderModel, source, revision, "model.checkpoint")
    if report:
        raise UserError(
            f"model.checkpoint={source!r} lacks {len(report)} weights that its config asks for ({report[0]}, ...); "
            "expected a whole checkpoint; fetch it again"
        )
    return model


def _load_weights(
    part: str, kind: Any, source: str, revision: str | None, key: str, **settings: Any
) -> tuple[Any, list[str]]:
    """A model and the names of its weights that the file lacks, an unused pooler's left out.

    Raises:
        UserError: it cannot be loaded, or weights have other shapes.
    """
    model, report = _load(
        part, kind, source, revision, key, dtype=torch.float32, output_loading_info=True,
        ignore_mismatched_sizes=True, **settings,
    )  # fmt: skip
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise UserError(
            f"{key}={source!r}: {name} has the shape {tuple(found)} and its config asks for {tuple(expected)}; "
            "expected weights and config of one model; fetch both again"
        )
    spare = sorted(name for name in report["unexpected_keys"] if not name.endswith(HARMLESS))
    if spare:
        log.info("%s of %s: %d weights have no place in it (%s, ...)", part, source, len(spare), spare[0])
    return model, sorted(name for name in report["missing_keys"] if not is_pooler(name))


def is_pooler(name: str) -> bool:
    """Whether a weight belongs to an encoder's pooler, which no captioner uses."""
    return "pooler" in name.split(".")


def _join(halves: Mapping[str, str], revision: str | None) -> PretrainedCaptioner:
    """A pretrained encoder and decoder with cross-attention (and projection) at random.

    Raises:
        UserError: a half is not given or cannot be loaded, or the two cannot be joined.
    """
    if set(halves) != {"encoder", "decoder"} or not all(halves.values()) or revision:
        raise UserError(
            f"model.from_encoder_decoder={dict(halves)} with model.revision={revision}; expected an encoder, a decoder "
            "and no revision; set model.from_encoder_decoder={encoder: ..., decoder: ...}"
        )
    keys = {half: f"model.from_encoder_decoder.{half}" for half in halves}
    sources = {half: find_source(keys[half], halves[half]) for half in halves}
    encoder, lacking = _load_weights("encoder", AutoModel, sources["encoder"], None, keys["encoder"])
    if lacking:
        raise UserError(
            f"{keys['encoder']}={sources['encoder']!r} lacks {len(lacking)} weights ({lacking[0]}, ...); expected a "
            "whole image encoder; choose another"
        )
    config = _load("config", AutoConfig, sources["decoder"], None, keys["decoder"])
    config.is_decoder = config.add_cross_attention = True
    decoder, fresh = _load_weights(
        "decoder", AutoModelForCausalLM, sources["decoder"], None, keys["decoder"], config=config
    )
    processor = _load("image processor", AutoImageProcessor, sources["encoder"], key=keys["encoder"])
    tokenizer = _load("tokenizer", AutoTokenizer, sources["decoder"], key=keys["decoder"])
    if not fresh:
        raise UserError(
            f"{keys['decoder']}={sources['decoder']!r} takes no new cross-attention; expected a text decoder such as "
            "gpt2 or bert-base-uncased; choose another"
        )
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    names = {f"decoder.{name}" for name in fresh}
    names |= {name for name, _ in model.named_parameters() if name.startswith("enc_to_dec_proj.")}
    preprocessing = make_preprocessing(model, tokenizer, processor)
    base_id = f"{sources['encoder']} + {sources['decoder']}"
    return PretrainedCaptioner(model.eval(), preprocessing, base_id, frozenset(names))
