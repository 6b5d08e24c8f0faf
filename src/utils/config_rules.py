"""What values mean beyond their type: ranges, names, and settings that contradict each other."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from src.utils.hardware import ACCELERATORS
from src.utils.signatures import read_constant

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
SHORT_PRECISIONS = ("32", "16", "bf16", "64", 32, 16, 64, None)  # Lightning's other names for them
MAX_SEED = 2**32 - 1  # NumPy takes no larger one


@dataclass(frozen=True, slots=True)
class Rule:
    """Keys that a pattern names have to pass a test."""

    pattern: str
    holds: Callable[[Any], bool]
    expected: str


def _number(
    low: float, high: float = float("inf"), null: bool = False, typed: bool = True
) -> Callable[[Any], bool]:
    """A test for numbers from low to high. typed: what is no number passes, its signature tells of that."""

    def holds(value: Any) -> bool:
        if value is None:
            return null
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return low <= value <= high if is_number else typed

    return holds


def _one_of(*choices: Any) -> Callable[[Any], bool]:
    return lambda value: value in choices


def _seed(value: Any) -> bool:
    return value is None or (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEED
    )


def _train_choices() -> tuple[str, ...]:
    return tuple(read_constant("src.models.freezing", "TRAIN_MODES"))


def _ratios(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    if any(isinstance(share, bool) or not isinstance(share, int | float) or share < 0 for share in value):
        return False
    return abs(sum(value) - 1) < 1e-6


RULES = (
    Rule("datamodule.batch_size", _number(1), "1 image or more"),
    Rule("datamodule.num_samples", _number(1, null=True), "1 image-caption pair or more, or null for all"),
    Rule("datamodule.captions_per_image", _number(1, null=True), "1 caption or more, or null for all"),
    Rule("datamodule.num_workers", _number(0, null=True), "0 processes or more, or null to choose"),
    Rule("datamodule.max_caption_tokens", _number(1, null=True), "1 token or more, or null"),
    Rule(
        "datamodule.split_ratios",
        _ratios,
        "three shares for train, val and test that sum to 1, as [0.8,0.1,0.1]",
    ),
    Rule("datamodule.num_folds", _number(2), "2 folds or more"),
    Rule("datamodule.fold", _number(0, null=True), "0 or more, or null for no cross-validation"),
    Rule("datamodule.max_skipped", _number(0, 1), "a share from 0 to 1"),
    Rule("model.num_beams", _number(1), "1 beam (greedy) or more"),
    Rule("model.max_length", _number(2, null=True), "2 tokens or more, or null"),
    Rule("model.num_layers_to_train", _number(0), "0 blocks or more"),
    Rule("model.adapter", _one_of(None, "lora"), "lora or null"),
    Rule("model.optimizer.lr", _number(0, typed=False), "a number, 0 or more"),
    Rule("model.optimizer.weight_decay", _number(0, typed=False), "a number, 0 or more"),
    Rule("model.lr_scheduler.interval", _one_of("step", "epoch"), "step or epoch"),
    Rule("model.lr_scheduler.frequency", _number(1), "1 or more"),
    Rule("model.lr_scheduler.scheduler.warmup", _number(0, 1), "a share of all steps from 0 to 1"),
    Rule("trainer.accelerator", _one_of(*ACCELERATORS), f"one of {', '.join(ACCELERATORS)}"),
    Rule("trainer.precision", _one_of(*PRECISIONS, *SHORT_PRECISIONS), f"one of {', '.join(PRECISIONS)}"),
    Rule("trainer.max_epochs", _number(-1, null=True), "0 epochs or more, -1 for no limit"),
    Rule("trainer.max_steps", _number(-1), "0 optimizer steps or more, -1 for no limit"),
    Rule("trainer.accumulate_grad_batches", _number(1), "1 batch or more"),
    Rule("trainer.gradient_clip_val", _number(0, null=True), "0 or more, or null"),
    Rule("trainer.num_nodes", _number(1), "1 machine or more"),
    Rule("trainer.devices", _number(-1), "1 device or more, -1 or auto for all"),
    Rule("trainer.log_every_n_steps", _number(1, null=True), "1 optimizer step or more"),
    Rule("trainer.limit_*_batches", _number(0, null=True), "a share up to 1.0 or a number of batches"),
    Rule("callbacks.*.mode", _one_of("min", "max"), "min or max"),
    Rule("callbacks.*.patience", _number(0), "0 validations or more"),
    Rule("callbacks.*.save_top_k", _number(-1), "0 checkpoints or more, -1 for all"),
    Rule("seed", _seed, f"a whole number from 0 to {MAX_SEED}, or null for none"),
    Rule("train", _one_of(True, False), "true or false"),
    Rule("test", _one_of(True, False), "true or false"),
    Rule("zero_shot", _one_of(True, False), "true or false"),
)


def broken_rules(values: Mapping[str, Any]) -> Iterator[str]:
    """One line for each value out of range; `values` maps dotted keys to plain values."""
    for key, value in values.items():
        for rule in RULES:
            if fnmatchcase(key, rule.pattern) and not rule.holds(value):
                yield f"{key}={value}; expected {rule.expected}; set {key}"
    train, choices = values.get("model.train"), _train_choices()
    if train is not None and train not in choices:
        yield f"model.train={train}; expected one of {', '.join(choices)}; set model.train=last_blocks"


def contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """One line for each pair of settings that cannot both be meant."""
    get = values.get
    for key, value in values.items():
        monitor = get(key.rpartition(".")[0] + ".monitor")
        is_mode = key.startswith("callbacks.") and key.endswith(".mode")
        if is_mode and value == "max" and "loss" in str(monitor):
            yield f"{key}=max with monitor={monitor}; expected min, a lower loss is better; set {key}=min"
    precision = get("trainer.precision")
    if get("trainer.accelerator") == "cpu" and str(precision) in ("16", "16-mixed", "16-true"):
        found = f"trainer.precision={precision} with trainer.accelerator=cpu"
        yield f"{found}; expected bf16-mixed or 32-true, a CPU has no fp16; set trainer.precision=auto"
    fold, folds = get("datamodule.fold"), get("datamodule.num_folds")
    if isinstance(fold, int) and isinstance(folds, int) and fold >= folds > 1:
        yield f"datamodule.fold={fold}; expected 0 to {folds - 1}; set it below datamodule.num_folds={folds}"
    limits = [get(f"trainer.{name}", "absent") for name in ("max_epochs", "max_steps", "max_time")]
    if limits == [-1, -1, None]:
        yield "trainer.max_epochs=-1 and max_steps=-1; expected a limit; set one of them, or trainer.max_time"
    if get("train") is False and get("test") is False:
        yield "train=false and test=false; expected something to do; set train=true or test=true"
