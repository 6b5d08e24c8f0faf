"""Arguments of the small commands become typed values, or one line that says what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from src.utils.command import parse_command, run_command
from src.utils.errors import UserError

DEFAULTS = {"checkpoint": None, "out": "x.csv", "beams": 4, "fraction": 0.5, "onnx": False}


def test_values_take_the_type_of_their_default():
    found = parse_command(["checkpoint=a=b", "beams=2", "fraction=1", "onnx=True"], DEFAULTS)
    assert found == {"checkpoint": "a=b", "out": "x.csv", "beams": 2, "fraction": 1.0, "onnx": True}


def test_tilde_is_the_home_folder_in_settings_and_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("USERPROFILE", "/home/ann")
    found = parse_command(["checkpoint=~/run", "out=~/a.csv", "~/images/*.jpg"], DEFAULTS, positional="paths")
    assert found["checkpoint"] == "/home/ann/run"
    assert found["out"] == "/home/ann/a.csv"
    assert found["paths"] == ["/home/ann/images/*.jpg"]
    with pytest.raises(UserError, match=r"no such user; expected a path; write \./~nobody-here/a\.csv"):
        parse_command(["checkpoint=x", "out=~nobody-here/a.csv"], DEFAULTS)


def test_a_pattern_or_file_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b.jpg").touch()
    found = parse_command(["exp=*/*.jpg", "a=b.jpg", "c.jpg", "checkpoint=x"], DEFAULTS, positional="paths")
    assert found["paths"] == ["exp=*/*.jpg", "a=b.jpg", "c.jpg"]
    assert found["checkpoint"] == "x"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chekpoint=x"], r"'chekpoint=x' is no argument; did you mean checkpoint=\.\.\.\?"),
        (["checkpoint"], "'checkpoint' is no argument"),
        ([], "checkpoint not given; expected checkpoint="),
        (["checkpoint=x", "beams=two"], "beams='two'; expected a whole number; set beams=4"),
        (["checkpoint=x", "fraction=half"], "fraction='half'; expected a number; set fraction=0.5"),
        (["checkpoint=x", "onnx=yes"], "onnx='yes'; expected true or false; set onnx=false"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        parse_command(arguments, DEFAULTS)


def test_exit_statuses(capsys):
    def fail(error):
        def main(arguments):
            raise error

        return main

    run_command(lambda arguments: "done", [])
    run_command(fail(UserError("not reached")), ["--help"], "usage: x=...")
    assert capsys.readouterr().out == "usage: x=...\n"
    for main, status in (
        (lambda arguments: 2, 2),
        (fail(UserError("key=\x1b[2J\u202e; expected 2")), "error: key=\\x1b[2J\\u202e; expected 2"),
        (fail(KeyboardInterrupt()), 130),
    ):
        with pytest.raises(SystemExit) as caught:
            run_command(main, [])
        assert caught.value.code == status


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_reader_that_closes_the_pipe_is_no_error(root):
    code = """from src.utils.command import run_command
run_command(lambda arguments: [print("x" * 99) for _ in range(9999)], [])"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
