"""A page to try a captioner: python -m src.app checkpoint=<run, .ckpt, saved folder or hub id>

checkpoint=        a run folder (its best), a .ckpt, `last`, a saved folder or a hub id
host=127.0.0.1     where to listen; an address of the network lets the network in
port=7860          0 takes a free one
num_beams=0        beams of the search, each an alternative; 0: as the checkpoint was evaluated
max_length=0       tokens of a caption, start token included; 0: as the checkpoint was evaluated
max_megabytes=20   of an uploaded file
max_megapixels=50  of a picture, height times width
device=auto        auto, cpu, cuda, mps
precision=auto     auto (bf16 where the hardware has it), bf16, 32
base=              where the base weights are now, when they were moved since training

Upload, drop or paste a picture: its caption, the other captions that the beams ended with, and where in the
picture the model looked at each word. Pictures stay here and are deleted within two minutes; the page fetches nothing
from elsewhere and sends nothing. Needs the extra `app`. Ctrl-C ends it.

Exit status: 1 a mistake in the command; 130 stopped.
"""

import importlib.util
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from src.app.serving import is_loopback, open_socket, serve
from src.utils.command import parse_command, run_command
from src.utils.errors import UserError

STOPPED = 130
DEFAULTS = {
    "checkpoint": None, "host": "127.0.0.1", "port": 7860, "num_beams": 0, "max_length": 0, "max_megabytes": 20,
    "max_megapixels": 50, "device": "auto", "precision": "auto", "base": "",
}  # fmt: skip


def check_package() -> None:
    """See that Gradio is installed, without importing it.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "the page needs gradio, which is not installed; expected the extra app; "
            "poetry install --extras app, or pip install gradio"
        )


def check_limits(settings: Mapping[str, Any]) -> None:
    """See that a picture could pass.

    Raises:
        UserError: a limit below 1.
    """
    for name in ("max_megabytes", "max_megapixels"):
        if settings[name] < 1:
            raise UserError(f"{name}={settings[name]}; expected 1 or more; set {name}={DEFAULTS[name]}")


def main(arguments: Sequence[str]) -> int:
    """Read `key=value` arguments, open the captioner and serve its page until Ctrl-C; the exit status.

    Raises:
        UserError: an argument that is not known or out of range, no Gradio, no captioner, or no such place to
            listen.
    """
    if any(word in ("-h", "--help") for word in arguments):
        print(__doc__)
        return 0
    try:
        serve_page(parse_command(arguments, DEFAULTS))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return STOPPED


def serve_page(settings: Mapping[str, Any]) -> None:
    """Serve until the process is told to stop; what is cheap to check is checked before the model is read.

    Raises:
        UserError: as `main`.
    """
    check_package()
    check_limits(settings)
    with open_socket(settings["host"], settings["port"]) as listening:
        from src.app.answers import MEGABYTE, MEGAPIXEL, Limits
        from src.app.page import load, open_page

        limits = Limits(settings["max_megabytes"] * MEGABYTE, settings["max_megapixels"] * MEGAPIXEL)
        captioner, about = load(settings)
        host, port = listening.getsockname()[:2]
        local = is_loopback(host)
        with open_page(captioner, about, limits, local) as page:
            address = f"[{host}]" if ":" in host else host
            if not local:
                print(
                    "anyone who can reach this machine can use the page; host=127.0.0.1 keeps it to yourself"
                )
            print(f"http://{address}:{port}/ shows the page; Ctrl-C ends it", flush=True)
            serve(page, listening)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the uploaded files go on this way out too
    run_command(main, sys.argv[1:])
