"""The command: mistakes are one line before anything is loaded, Ctrl-C ends it and leaves nothing behind."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("gradio")

from src.app import __main__ as command
from src.app.__main__ import main
from src.utils.errors import UserError


def call(*words: object) -> int:
    return main([str(word) for word in words])


def test_help_tells_every_argument(capsys):
    assert call("--help") == 0
    told = capsys.readouterr().out
    assert all(f"\n{name}=" in told for name in command.DEFAULTS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["checkpoint=x", "port=70000"], "port=70000; expected 0 to 65535; set port=7860"),
        (["checkpoint=x", "host=no.such.host.invalid"], "host='no.such.host.invalid' port=7860 cannot"),
        (["checkpoint=x", "host=" + "a" * 70], "cannot be listened at"),
        (["checkpoint=x", "host=192.0.2.1", "port=0"], r"host='192\.0\.2\.1' port=0 cannot be listened at"),
        (["checkpoint=x", "max_megabytes=0"], "max_megabytes=0; expected 1 or more; set max_megabytes=20"),
        (["checkpoint=x", "max_megapixels=-1"], "max_megapixels=-1; expected 1 or more"),
        (["checkpoint=/no/where.ckpt", "port=0"], "checkpoint='/no/where.ckpt' does not exist"),
        (["port=0"], "checkpoint not given"),
        (["checkpoint=x", "share=true"], "'share=true' is no argument"),
    ],
)
def test_mistakes_are_told(words, told):
    with pytest.raises(UserError, match=told):
        call(*words)


def test_a_taken_port_is_told_before_the_model_is_read():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"port={port} cannot be listened at \(address already in use\)"):
            call("checkpoint=/no/where.ckpt", f"port={port}")


def test_a_machine_without_gradio_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs gradio.*poetry install --extras app, or pip install gradio"):
        call("checkpoint=x")


def test_a_stop_while_it_loads_is_a_line(monkeypatch, capsys):
    def stopped(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "serve_page", stopped)
    assert call("checkpoint=x") == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_as_a_command(root, tiny_checkpoint, tmp_path):
    """Listens at this machine's own address, serves the page, and ends with a line, its files removed."""
    words = [sys.executable, "-m", "src.app", f"checkpoint={tiny_checkpoint}", "port=0"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        words, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("captioner-")]
    with urllib.request.urlopen(line.split()[0], timeout=60) as page:
        assert b"Captioner" in page.read()
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out, told) == (130, "", "stopped\n")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("captioner-")]
