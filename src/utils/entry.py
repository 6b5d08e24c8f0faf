"""Run entry points and small commands: a user's mistake ends in one line, the traceback of a fault goes to a file."""

import atexit
import difflib
import gc
import glob
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from src.utils.errors import ConfigErrors, UserError, causes
from src.utils.logging import rank, visible

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
USUAL_NAMES = {  # of other programs
    "epochs": "trainer.max_epochs", "num_epochs": "trainer.max_epochs", "steps": "trainer.max_steps",
    "lr": "model.optimizer.lr", "learning_rate": "model.optimizer.lr", "gpus": "trainer.devices",
}  # fmt: skip
OWN_CONFIGS = ("--config", "-cd", "-cn", "-cp")  # Hydra's flags for configs outside of ours


def run_entry(main: Callable[[], object]) -> None:
    """Call a `hydra.main` function; an error ends the process with status 1, Ctrl-C with 130."""
    sys.argv[1:] = [normalize_override(argument) for argument in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # with it Hydra leaves errors to us
    try:
        main()
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(report(error))


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import torch and what builds on it without Python's search for reference cycles: an eighth of a start less."""
    is_first = "torch" not in sys.modules
    if is_first:
        gc.disable()
    try:
        yield
    finally:
        if is_first:
            gc.freeze()  # modules stay, so that no later search has to visit them
            atexit.register(gc.unfreeze)  # libraries report what the interpreter does not free at its end
            gc.enable()


def normalize_override(argument: str) -> str:
    """Rewrite `+a.b=1` to `++a.b=1`, which also sets a key that exists, and `logger=null` to the option `none`."""
    if re.fullmatch(r"\+?(logger|callbacks)=null", argument):
        return argument.lstrip("+").replace("null", "none")
    return f"+{argument}" if re.match(r"\+[\w]+\.[\w.]+=", argument) else argument


def optimized_value(metrics: Mapping[str, float], name: str | None) -> float | None:
    """Return the metric that a search optimizes; a UserError without it ends the search after its first trial."""
    if not name or name in metrics:
        return metrics[name] if name else None
    near = difflib.get_close_matches(name, list(metrics), n=1, cutoff=0.3) or ["val/loss_best"]
    expected = f"expected a metric of metrics.json ({', '.join(sorted(metrics))})"
    error = UserError(f"optimized_metric={name}; {expected}; set optimized_metric={near[0]}")
    leave(error, whole=True)
    raise error


def leave(error: BaseException, whole: bool = False) -> None:
    """End the process with the error printed, where Hydra runs a single job; otherwise return.

    A multirun's sweeper has to see that a job failed. whole: end a multirun too: its other jobs would fail alike.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    mode = HydraConfig.get().mode if HydraConfig.initialized() else None  # None: a config composed in Python
    if mode == RunMode.RUN or (whole and mode == RunMode.MULTIRUN):
        sys.exit(report(error))


def report(error: BaseException) -> int:
    """Print the error on standard error, on rank 0 alone where all processes have the same; return the exit status."""
    mistake = next((cause for cause in causes(error) if isinstance(cause, UserError)), None)
    if not (rank() and getattr(mistake, "everywhere", False)):
        where = f"[rank {rank()}] " if rank() else ""
        text = f"{mistake.label}{mistake}" if mistake else message(error)
        print(visible(f"{where}{text}", keep="\n\t"), file=sys.stderr, flush=True)
    return mistake.exit_status if mistake else 130 if isinstance(error, KeyboardInterrupt) else 1


def message(error: BaseException) -> str:
    """Return the lines to print about what is no `UserError`: a traceback only where no file has it."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    notes = getattr(error, "__notes__", [])
    is_hydra = isinstance(error, HydraException | OmegaConfBaseException)
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    if is_hydra and not isinstance(error, InstantiationException):
        try:
            problems = find_faults(sys.argv[1:], Path(sys.argv[0]).stem)
        except Exception:  # the base config itself does not compose
            problems = []
        return f"error: {ConfigErrors(problems or [_one_line(error)])}"
    if isinstance(error, OSError) and error.filename and not notes:  # Hydra could not create the run folder
        found = f"error: {error.filename} cannot be written ({error.strerror})"
        return f"{found}; expected a folder with room; set paths.log_dir=FOLDER"
    if notes:
        return "\n".join([f"error: {type(error).__name__}: {error}", *notes])
    return "".join(traceback.format_exception(error)).rstrip()


def find_faults(arguments: Sequence[str], config_name: str) -> list[str]:
    """Return one line for each override that does not compose, tried one after the other, groups first.

    Nothing of configs outside of ours: Hydra's own text has to do.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from src.utils.config_check import find_problems

    if any(argument.startswith(OWN_CONFIGS) for argument in arguments):
        return []
    parsed: list[Any] = []
    good, problems, unread = list[str](), list[str](), ["\0"]

    def compose_with(overrides: list[str]) -> Any:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose(config_name, overrides, return_hydra_config=True)

    config = compose_with([])
    for before, argument in pairwise(["", *arguments]):
        if argument.startswith("-") or before in ("-c", "--cfg"):
            continue
        try:
            parsed += OverridesParser.create().parse_overrides([argument])
        except HydraException:
            unread.append(argument.partition("=")[0].lstrip("+~"))
            problems.append(quoting_hint(argument))
    for override in sorted(parsed, key=lambda one: "." in one.key_or_group):
        if not override.is_sweep_override():  # which only a multirun can compose
            try:
                config = compose_with([*good, override.input_line])
                good.append(override.input_line)
            except Exception as error:
                unread.append(str(override.key_or_group).replace("/", "."))
                problems.append(_describe(override, error, config))
    # The value that an override would have replaced may be wrong as well, which is only a consequence.
    return problems + [line for line in find_problems(config) if not line.startswith(tuple(unread))]


def _describe(override: Any, error: Exception, config: Any) -> str:
    from hydra.errors import MissingConfigException
    from omegaconf import OmegaConf

    from src.utils.run_folder import flat

    key, text = override.key_or_group, override.input_line
    if isinstance(error, MissingConfigException) and error.options:
        return f"{text}; expected one of {', '.join(error.options)}; set {key} to one of them"
    keys = [name for name, _ in flat(OmegaConf.to_container(config, resolve=False))]
    if override.is_add() or override.is_delete() or key in keys:
        return f"{text}; {_one_line(error)}"
    groups = [path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*") if path.is_dir()]
    same = [name for name in keys if name.rpartition(".")[2] == key.rpartition(".")[2]]  # in another group
    near = [USUAL_NAMES[key]] if key in USUAL_NAMES else []
    near = near or difflib.get_close_matches(key, same or keys + groups, n=1, cutoff=0 if same else 0.6)
    hint = f"did you mean {near[0]}?" if near else f"+{text} adds a new one, --cfg job shows all"
    return f"{text}; expected a key of the config; {hint}"


def quoting_hint(argument: str) -> str:
    """Return the line about an override that Hydra cannot parse: the character, and the quoting that works."""
    key, equals, value = argument.partition("=")
    if not equals:
        return f"{argument} cannot be read; expected key=value; write {argument}=VALUE, or ~{argument} to remove it"
    special = next((char for char in value if char in " ,=()[]{}:~$\"'\\#&;<>!^`"), None)
    value = str(Path(value).expanduser()) if value.startswith("~/") else value
    inside = f"{key}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    outside = shlex.quote(inside) if set(inside) & set('"$`!\\') else f'"{inside}"'
    found = f"the character {special!r}" if special else "the value"
    return f"{argument} cannot be read because of {found}; expected a quoted value; write {outside}"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{error} {error.__cause__ or ''}".split())


def parse_command(arguments: Sequence[str], defaults: Mapping[str, Any], positional: str = "") -> dict[str, Any]:
    """Parse `key=value` arguments over `defaults`, each to its default's type; None marks a required key.

    In place of a default may stand a type or annotation: of a key that is absent from the result unless it is given.
    positional: a key that collects files, folders and patterns, which may hold a `=`. UserError: a wrong argument.
    """
    values: dict[str, Any] = {positional: []} if positional else {}
    values |= {key: value for key, value in defaults.items() if value is None or isinstance(value, str | int | float)}
    expected = f"expected {', '.join(f'{key}=...' for key in defaults)}"
    for argument in arguments:
        key, equals, value = argument.partition("=")
        is_pattern = key not in defaults and glob.has_magic(argument)
        if positional and (not equals or is_pattern or os.path.lexists(argument)):
            values[positional].append(os.path.expanduser(argument))
        elif equals and key in defaults:
            values[key] = _convert(key, value, defaults[key])
        else:
            near = difflib.get_close_matches(key, list(defaults), n=1)
            hint = f"; did you mean {near[0]}=...?" if near else ""
            raise UserError(f"{argument!r} is no argument{hint}; {expected}")
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not given; {expected}")
    if values.get("checkpoint") == "last":
        from src.utils.run_folder import PROJECT_LOGS, newest_run

        values["checkpoint"] = str(newest_run(values.get("log_dir") or PROJECT_LOGS, key="checkpoint"))
        print(f"checkpoint={values['checkpoint']} (the newest finished run)", file=sys.stderr)
    return values


def _convert(key: str, value: str, default: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    if isinstance(default, str | None):
        return os.path.expanduser(value)  # some shells leave the ~ of out=~/a.csv
    is_value = isinstance(default, int | float)
    try:
        return TypeAdapter(type(default) if is_value else default).validate_python(value)
    except ValidationError as error:
        expected = error.errors()[0]["msg"].removeprefix("Input should be ").partition(",")[0]
        remedy = f"set {key}={str(default).lower()}" if is_value else f"set or remove {key}"
        raise UserError(f"{key}={value!r}; expected {expected}; {remedy}") from error


def run_command(main: Callable[[list[str]], object], arguments: list[str], usage: str = "") -> None:
    """Call `main`; an int that it returns is the exit status, a UserError is one line and status 1.

    usage: printed instead for `-h` and `--help`.
    """
    try:
        if usage and {"-h", "--help"} & set(arguments):
            print(usage.strip())
            return
        status = main(arguments)
        sys.stdout.flush()
    except (UserError, KeyboardInterrupt) as error:
        sys.exit(report(error))
    except BrokenPipeError:  # the reader of the pipe (`head`) has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own last flush
        sys.exit(141)
    if isinstance(status, int) and status:
        sys.exit(status)


def run_short_command(main: Callable[[list[str]], object], arguments: list[str], usage: str = "") -> NoReturn:
    """Call `run_command` and end the process without freeing what was imported: after torch that takes two seconds."""
    status: Any = 0
    try:
        run_command(main, arguments, usage)
    except SystemExit as ended:
        status = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
