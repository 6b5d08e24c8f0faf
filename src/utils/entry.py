"""How an entry point ends: a person's mistake is one line, not a traceback."""

import os
import sys
from collections.abc import Callable, Iterator

from src.utils.errors import UserError
from src.utils.resolvers import register_resolvers


def run_entry(main: Callable[[], object]) -> None:
    """Call a `hydra.main` function and leave with status 0, 1 (an error) or 130 (stopped)."""
    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of being printed by Hydra
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(_say("stopped", 130))
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        sys.exit(_say(f"error: {message}", 1))


def _say(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def _message(error: BaseException) -> str | None:
    """The line to show, or None for an error that is not the person's."""
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return str(cause)
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException) and not _is_inside_target(error):
        return _about_overrides(error)
    return None


def _is_inside_target(error: BaseException) -> bool:
    """Whether something that a config's `_target_` names failed for a reason of its own: that is a fault to see."""
    from hydra.errors import InstantiationException

    return isinstance(error, InstantiationException) and not isinstance(error.__cause__, TypeError | None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _about_overrides(error: BaseException) -> str:
    """All overrides that the config does not know, each with the nearest key that it does."""
    from src.utils.overrides import explain_overrides

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = explain_overrides(sys.argv[1:])
    return "; ".join(found) if found else f"{' '.join(lines)}; `{os.path.basename(sys.argv[0])} --help` lists what can be set"
