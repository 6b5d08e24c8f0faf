"""Run an entry point: a user's mistake ends in one line, the traceback of a fault goes to a file."""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping

from src.utils.errors import UserError
from src.utils.logging import rank, visible

FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own switch: 1 shows tracebacks; with it Hydra leaves errors to us
OURS = "CAPTIONER_ENTRY"  # set while the switch is on by our doing, so that child processes know

_running = False


def run_entry(main: Callable[[], object]) -> None:
    """Call a `hydra.main` function; an error ends the process with status 1, Ctrl-C with 130.

    Tracebacks stand in the run folder; HYDRA_FULL_ERROR=1 shows them.
    """
    global _running
    sys.argv[1:] = [normalize_override(word) for word in sys.argv[1:]]
    wanted, inherited = os.environ.get(FULL_ERROR), os.environ.get(OURS)
    os.environ.update({FULL_ERROR: "1", OURS: inherited or ("traceback" if wanted == "1" else "line")})
    _running = True
    try:
        if "--resolve" in sys.argv and not {"--cfg", "-c", "--help"} & set(sys.argv):
            raise UserError("--resolve without --cfg; expected both; add --cfg job")
        main()
    except KeyboardInterrupt as error:
        sys.exit(report(error))
    except Exception as error:
        sys.exit(report(error))
    finally:
        _running = False
        for name, value in ((FULL_ERROR, wanted), (OURS, inherited)):
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def normalize_override(argument: str) -> str:
    """Rewrite what Hydra refuses although it is clear.

    `+group.key=value` becomes `++group.key=value`, which sets a key that exists as well as a new one; `logger=null`
    and `callbacks=null` become the option `none`.
    """
    if re.fullmatch(r"\+?(logger|callbacks)=null", argument):
        return argument.lstrip("+").replace("null", "none")
    return f"+{argument}" if re.match(r"\+[\w]+\.[\w.]+=", argument) else argument


def optimized_value(metrics: Mapping[str, float], name: str | None) -> float | None:
    """Return the metric that a hyperparameter search optimizes.

    Raises:
        UserError: the run has no such metric; this ends a search after its first trial.
    """
    if not name or name in metrics:
        return metrics.get(name) if name else None
    near = difflib.get_close_matches(name, list(metrics), n=1, cutoff=0.3) or ["val/loss_best"]
    error = UserError(
        f"optimized_metric={name}; expected a metric of metrics.json ({', '.join(sorted(metrics))}); "
        f"set optimized_metric={near[0]}"
    )
    leave(error, whole=True)
    raise error


def leave(error: BaseException, whole: bool = False) -> None:
    """End the process with the error printed, where an entry runs a single job; otherwise return.

    Hydra would print a line of its own first. In a multirun its sweeper has to see that a job failed, and a
    caller from Python wants the exception. whole: end a multirun as well, since its other jobs would meet the
    same error.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if _running and HydraConfig.initialized() and (whole or HydraConfig.get().mode == RunMode.RUN):
        sys.exit(report(error))


def report(error: BaseException) -> int:
    """Print the error on standard error, on rank 0 alone where all processes have the same; return the exit status."""
    if os.environ.get(OURS) == "traceback":
        traceback.print_exception(error)
    if not (rank() and any(getattr(cause, "everywhere", False) for cause in _causes(error))):
        _print(message(error) or "".join(traceback.format_exception(error)).rstrip())
    status = 130 if isinstance(error, KeyboardInterrupt) else 1
    return next((cause.exit_status for cause in _causes(error) if hasattr(cause, "exit_status")), status)


def message(error: BaseException) -> str | None:
    """Return the lines to print, or None where a traceback is needed."""
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return f"{cause.label}{cause}"
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, InstantiationException):
        pass  # what a `_target_` names failed for a reason of its own: a fault to see
    elif isinstance(error, HydraException | OmegaConfBaseException):
        from src.utils.overrides import explain

        return f"error: {explain(error, sys.argv[1:])}"
    notes = getattr(error, "__notes__", [])
    if isinstance(error, OSError) and error.filename and not notes:  # Hydra could not create the run folder
        return (
            f"error: {error.filename} cannot be written ({error.strerror}); expected a folder with room; "
            "set paths.log_dir=FOLDER"
        )
    kind = type(error).__name__
    return "\n".join([f"error: {kind}: {error}", *notes]) if notes else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _print(text: str) -> None:
    where = f"[rank {rank()}] " if rank() else ""
    print(visible(f"{where}{text}", keep="\n\t"), file=sys.stderr, flush=True)
