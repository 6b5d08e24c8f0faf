"""Small commands: what was typed becomes typed values, or one line that says what is wrong."""

import subprocess
import sys

import pytest

from src.utils.command import parse_command, run_command
from src.utils.errors import UserError

DEFAULTS = {"checkpoint": None, "out": "x.csv", "beams": 4, "share": 0.5, "onnx": False}


def test_values_take_the_type_of_their_default():
    found = parse_command(["checkpoint=a=b", "beams=2", "share=1", "onnx=True"], DEFAULTS)
    assert found == {"checkpoint": "a=b", "out": "x.csv", "beams": 2, "share": 1.0, "onnx": True}
    assert parse_command(["checkpoint=", "onnx=false"], DEFAULTS)["onnx"] is False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["chekpoint=x"], r"'chekpoint=x' is no argument; did you mean checkpoint=\.\.\.\?"),
        (["checkpoint"], "'checkpoint' is no argument"),
        ([], "checkpoint not given; expected checkpoint="),
        (["checkpoint=x", "beams=two"], "beams='two'; expected a whole number; set beams=4"),
        (["checkpoint=x", "share=half"], "share='half'; expected a number; set share=0.5"),
        (["checkpoint=x", "onnx=yes"], "onnx='yes'; expected true or false; set onnx=false"),
    ],
)
def test_mistakes_are_named(words, told):
    with pytest.raises(UserError, match=told):
        parse_command(words, DEFAULTS)


@pytest.mark.parametrize(("result", "status"), [(None, None), ("done", None), (0, None), (2, 2)])
def test_a_whole_number_is_the_status(result, status):
    if status is None:
        run_command(lambda words: result, [])
    else:
        with pytest.raises(SystemExit) as caught:
            run_command(lambda words: result, [])
        assert caught.value.code == status


def test_a_mistake_and_a_stop_end_without_a_traceback():
    def mistake(words):
        raise UserError("key=1; expected 2; set key=2")

    def stop(words):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_command(mistake, [])
    assert caught.value.code == "error: key=1; expected 2; set key=2"
    with pytest.raises(SystemExit) as caught:
        run_command(stop, [])
    assert caught.value.code == 130


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_reader_that_leaves_is_no_error(root):
    code = """from src.utils.command import run_command
run_command(lambda words: [print("x" * 99) for _ in range(9999)], [])"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
