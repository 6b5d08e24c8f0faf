"""Log on rank 0 alone, each record as one line that is safe for a terminal."""

import logging
import os
import re
import sys

from tqdm import tqdm

# Control characters, half characters, and what ends or turns round a line: a terminal would obey file names.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
# Of SLURM; of the processes that Lightning starts; of a machine whose first process was started by hand.
RANK_VARIABLES = ("SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")


def rank() -> int:
    """Return this process's rank; rank 0 alone logs and writes files. Without RANK, above 0 is only "another"."""
    if os.environ.get("RANK", "").isdigit():
        return int(os.environ["RANK"])
    return max(int(os.environ[name]) if os.environ.get(name, "").isdigit() else 0 for name in RANK_VARIABLES)


def visible(text: str, keep: str = "") -> str:
    """Escape unsafe characters, but those of `keep`, as \\x1b or \\n."""
    return UNSAFE.sub(lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text)


def pass_rank_zero(record: logging.LogRecord) -> bool:
    """Escape control characters in a record, so that file names forge no lines; return whether this is rank 0."""
    record.msg, record.args = visible(record.getMessage()), None
    return rank() == 0


class Console(logging.Handler):
    """Print records on standard output, above a progress bar where there is one; warnings are marked."""

    def emit(self, record: logging.LogRecord) -> None:
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        try:
            tqdm.write(mark + self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except Exception:
            self.handleError(record)


def get_logger(name: str) -> logging.Logger:
    """Return the project's logger of a module: `log = get_logger(__name__)`."""
    logger = logging.getLogger(name)
    logger.addFilter(pass_rank_zero)  # which a logger takes once, however often it is requested
    return logger
