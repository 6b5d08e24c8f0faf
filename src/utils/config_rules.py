"""Ranges and conflicts of settings that no signature states."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PydanticSchemaGenerationError,
    TypeAdapter,
    ValidationError,
)
from pydantic.errors import PydanticUserError

from src.utils.hardware import ACCELERATORS

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
SHORT_PRECISIONS = ("32", "16", "bf16", "64", 32, 16, 64, None)  # Lightning's other names for them
FINE_TUNING_METHODS = ("last_blocks", "cross_attention", "lora", "full")
MAX_SEED = 2**32 - 1  # NumPy takes no larger one


class Rule(NamedTuple):
    """What the values of the keys that `pattern` matches have to fit, and that in words."""

    pattern: str
    annotation: Any
    expected: str


def _sum_to_one(ratios: list[float]) -> list[float]:
    if abs(sum(ratios) - 1) > 1e-6:
        raise ValueError("the ratios do not sum to 1")
    return ratios


def _one_of(*choices: Any) -> Any:
    return Literal[choices]


NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Ratios = Annotated[list[NotNegative], Field(min_length=3, max_length=3), AfterValidator(_sum_to_one)]
Limit = Annotated[int, Field(ge=0)] | Fraction | None
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)] | None

RULES = (
    Rule("datamodule.batch_size", Count, "a whole number, 1 image or more"),
    Rule(
        "datamodule.num_samples",
        Count | None,
        "a whole number, 1 image-caption pair or more, or null for all",
    ),
    Rule("datamodule.captions_per_image", Count | None, "a whole number, 1 caption or more, or null for all"),
    Rule(
        "datamodule.num_workers",
        Annotated[int, Field(ge=0)] | None,
        "a whole number, 0 threads or more, or null",
    ),
    Rule("datamodule.max_caption_tokens", Count | None, "a whole number, 1 token or more, or null"),
    Rule(
        "datamodule.split_ratios",
        Ratios,
        "three fractions for train, val and test that sum to 1, as [0.8,0.1,0.1]",
    ),
    Rule("datamodule.num_folds", Annotated[int, Field(ge=3)], "a whole number, 3 folds or more"),
    Rule("datamodule.fold", Annotated[int, Field(ge=0)] | None, "a whole number, 0 or more, or null"),
    Rule("datamodule.max_skipped", Fraction, "a fraction from 0 to 1"),
    Rule("model.train", _one_of(*FINE_TUNING_METHODS), f"one of {', '.join(FINE_TUNING_METHODS)}"),
    Rule("model.num_beams", Annotated[int, Field(ge=1, le=1000)], "a whole number, 1 beam (greedy) to 1000"),
    Rule("model.max_length", Annotated[int, Field(ge=2)] | None, "a whole number, 2 tokens or more, or null"),
    Rule("model.num_layers_to_train", Annotated[int, Field(ge=0)], "a whole number, 0 blocks or more"),
    Rule("model.optimizer.lr", NotNegative, "a number, 0 or more"),
    Rule("model.optimizer.weight_decay", NotNegative, "a number, 0 or more"),
    Rule("model.lr_scheduler.interval", _one_of("step", "epoch"), "step or epoch"),
    Rule("model.lr_scheduler.frequency", Count, "a whole number, 1 or more"),
    Rule("model.lr_scheduler.scheduler.warmup", Fraction, "a fraction of all steps from 0 to 1"),
    Rule("trainer.accelerator", _one_of(*ACCELERATORS), f"one of {', '.join(ACCELERATORS)}"),
    Rule(
        "trainer.precision",
        _one_of(*PRECISIONS, *SHORT_PRECISIONS),
        f"one of {', '.join(PRECISIONS)}, or null",
    ),
    Rule("trainer.max_epochs", Annotated[int, Field(ge=-1)] | None, "0 epochs or more, -1 for no limit"),
    Rule("trainer.max_steps", Annotated[int, Field(ge=-1)], "0 optimizer steps or more, -1 for no limit"),
    Rule("trainer.accumulate_grad_batches", Count, "a whole number, 1 batch or more"),
    Rule("trainer.gradient_clip_val", NotNegative | None, "a number, 0 or more, or null"),
    Rule("trainer.num_nodes", Count, "a whole number, 1 machine or more"),
    Rule("trainer.log_every_n_steps", Count | None, "a whole number, 1 optimizer step or more"),
    Rule("trainer.limit_*_batches", Limit, "a fraction up to 1.0 or a number of batches"),
    Rule("callbacks.*.mode", _one_of("min", "max"), "min or max"),
    Rule("callbacks.*.patience", Annotated[int, Field(ge=0)], "a whole number, 0 validations or more"),
    Rule(
        "callbacks.*.save_top_k",
        Annotated[int, Field(ge=-1)],
        "a whole number, 0 checkpoints or more, -1 for all",
    ),
    Rule("seed", Seed, f"a whole number from 0 to {MAX_SEED}, or null for none"),
    Rule("train", bool, "true or false"),
    Rule("test", bool, "true or false"),
    Rule("zero_shot", bool, "true or false"),
)


def find_rule(key: str) -> Rule | None:
    """Return the rule of a dotted key."""
    return next((rule for rule in RULES if fnmatchcase(key, rule.pattern)), None)


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value of a config is one of an annotation's type and range; an unknown type fits.

    Strict: text is no number and a number is no boolean. A list of a config also stands for a tuple.
    """
    adapter = _adapter(annotation)
    if adapter is None:
        return True
    for candidate in (value, tuple(value)) if isinstance(value, list) else (value,):
        try:
            adapter.validate_python(candidate, strict=True)
            return True
        except ValidationError:
            continue
    return False


@cache
def _cached_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError):
        return None


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # an annotation that cannot be hashed
        return None


def find_conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each pair of settings that contradict each other; `values` maps dotted keys to values."""
    get = values.get
    for key, value in values.items():
        monitor = get(key.rpartition(".")[0] + ".monitor")
        if (
            key.startswith("callbacks.")
            and key.endswith(".mode")
            and value == "max"
            and "loss" in str(monitor)
        ):
            yield f"{key}=max with monitor={monitor}; expected min, a lower loss is better; set {key}=min"
    precision = get("trainer.precision")
    if get("trainer.accelerator") == "cpu" and str(precision) in ("16", "16-mixed", "16-true"):
        found = f"trainer.precision={precision} with trainer.accelerator=cpu"
        yield f"{found}; expected bf16-mixed or 32-true, a CPU has no fp16; set trainer.precision=null"
    fold, folds = get("datamodule.fold"), get("datamodule.num_folds")
    if isinstance(fold, int) and isinstance(folds, int) and fold >= folds > 2:
        yield f"datamodule.fold={fold}; expected 0 to {folds - 1}; set it below datamodule.num_folds={folds}"
    limits = [get(f"trainer.{name}", "absent") for name in ("max_epochs", "max_steps", "max_time")]
    if limits == [-1, -1, None]:
        yield "trainer.max_epochs=-1 and max_steps=-1; expected a limit; set one of them, or trainer.max_time"
    if get("train") is False and get("test") is False:
        yield "train=false and test=false; expected something to do; set train=true or test=true"
