"""Load models, tokenizers and processors from a folder, the Hugging Face Hub or its cache; each failure is one line."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

# Without safetensors in a repository, transformers would ask a service to convert it, from a thread of its own.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

import transformers
from huggingface_hub import constants
from huggingface_hub.utils import enable_progress_bars

from src.utils.errors import UserError, causes

KNOWN_ID = "nlpconnect/vit-gpt2-image-captioning"
CONNECT_SECONDS = 5.0


def find_source(key: str, checkpoint: str) -> str:
    """Resolve `checkpoint` to a folder's absolute path, or return the hub id; a UserError for a path to nothing."""
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return str(path.resolve())
    in_folder = path.parent.is_dir() and path.parent != Path()  # `gpt2` alone is a hub id
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1 or in_folder:
        raise UserError(
            f"{key}={checkpoint!r} does not exist; expected a folder with config.json and weights or a hub id such as "
            f"{KNOWN_ID}; set {key}=..."
        )
    return checkpoint


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Suppress load reports and retry warnings; downloads keep their progress bar on a terminal."""
    levels = {logger: logger.level for logger in map(logging.getLogger, ("transformers", "huggingface_hub"))}
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    if sys.stderr.isatty():
        enable_progress_bars()
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


@lru_cache
def is_hub_reachable() -> bool:
    """Try one connection to the hub: otherwise each file would be tried six times, with pauses."""
    address = urlsplit(constants.ENDPOINT)
    if constants.is_offline_mode() or not address.hostname:
        return False
    try:
        if address.scheme not in getproxies():  # else the proxy decides
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname, port), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def load_pretrained(
    part: str, kind: Any, source: str, revision: str | None = None, key: str = "model.checkpoint", **settings: Any
) -> Any:
    """Call `kind.from_pretrained` without remote code; a UserError where it cannot be loaded.

    part: its name in messages ("config", "model"). source: a folder or a hub id. key: the setting that named it.
    """
    if not Path(source).is_dir():
        settings["local_files_only"] = not is_hub_reachable()
    try:
        return kind.from_pretrained(source, revision=revision, trust_remote_code=False, **settings)
    except Exception as error:
        found = f"{key}={source!r}" + (f" at revision {revision!r}" if revision else "")
        if any(isinstance(cause, UnpicklingError) for cause in causes(error, implicit=True)):
            raise UserError(
                f"{found}: its weights are a pickle that holds more than tensors or is damaged, and was not loaded, "
                "since that could run code from it; expected plain weights; use a safetensors file from a source that "
                "you trust"
            ) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{found}: its {part} cannot be loaded ({reason}); expected a folder in save_pretrained's layout, or the "
            f"id of a model on {constants.ENDPOINT} that you can reach and read; without a connection copy its folder "
            f"here and set {key}=<folder>"
        ) from error
