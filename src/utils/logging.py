"""Logging that speaks once, however many processes run."""

import logging
import os
from collections.abc import MutableMapping
from typing import Any

RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def rank() -> int:
    """This process's place among the processes of the run, 0 when there is one."""
    for name in RANK_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


class RankZeroLogger(logging.LoggerAdapter):
    """A logger that is silent on every rank but 0; arguments are formatted as the standard library does."""

    def isEnabledFor(self, level: int) -> bool:
        return rank() == 0 and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


def get_logger(name: str) -> RankZeroLogger:
    """The project's logger for a module: `log = get_logger(__name__)`."""
    return RankZeroLogger(logging.getLogger(name), {})
