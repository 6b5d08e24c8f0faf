"""How commands end: in lines, with a status, whatever went wrong; a wrong command line is explained whole."""

import gc
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, InstantiationException
from omegaconf.errors import ConfigKeyError

from src.utils.entry import (
    find_faults,
    heavy_imports,
    leave,
    message,
    normalize_override,
    optimized_value,
    parse_command,
    quoting_hint,
    run_command,
    run_entry,
)
from src.utils.errors import Stopped, UserError
from tests.utils.composing import job

DEFAULTS = {"checkpoint": None, "out": "x.csv", "beams": 4, "fraction": 0.5, "onnx": False}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Restore what `run_entry` sets."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")


def ending(error):
    """Return the status that an entry leaves for an error of its main."""

    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_entry(main)
    return caught.value.code


def caused(error, cause):
    error.__cause__ = cause
    return error


def noted(error):
    error.add_note("the traceback is in /run/error.log")
    return error


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("a=1; expected 2; set a=2"), 1, "error: a=1; expected 2; set a=2\n"),
        (caused(InstantiationException("Error in call to target"), UserError("no file")), 1, "error: no file\n"),
        (Stopped(2, "; resume with ckpt_path=last"), 130, "stopped by SIGINT; resume with ckpt_path=last\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (
            noted(RuntimeError("the wheel came off")),
            1,
            "error: RuntimeError: the wheel came off\nthe traceback is in /run/error.log\n",
        ),
    ],
)
def test_an_error_is_short_and_has_its_status(error, status, text, capsys):
    assert ending(error) == status
    assert capsys.readouterr().err == text


@pytest.mark.parametrize(
    ("variables", "error", "text"),
    [
        ({}, RuntimeError("no file has it"), "Traceback"),
        ({"RANK": "1"}, Stopped(15, " alone"), "[rank 1] stopped by SIGTERM alone\n"),
        ({"RANK": "1"}, Stopped(15, "", everywhere=True), ""),  # rank 0 reports it
    ],
)
def test_the_environment_decides_what_is_printed(capsys, monkeypatch, variables, error, text):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ending(error) == getattr(error, "exit_status", 1)
    printed = capsys.readouterr().err
    assert printed.startswith(text)
    assert bool(printed) == bool(text)


def test_hydras_errors_are_explained(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "seeed=1"])
    for error in (ConfigCompositionException("Could not override"), ConfigKeyError("no key")):
        assert "seeed=1; expected a key of the config; did you mean seed?" in message(error)


@pytest.mark.parametrize(
    ("mode", "whole", "ends"), [("RUN", False, True), ("MULTIRUN", False, False), ("MULTIRUN", True, True)]
)
def test_a_job_ends_the_process_where_it_is_alone_or_all_are_meant(tmp_path, capsys, mode, whole, ends):
    went_on = []

    def main():
        with job(tmp_path, f"hydra.mode={mode}"):
            leave(UserError("mine"), whole=whole)
        went_on.append(True)

    if ends:
        with pytest.raises(SystemExit):
            run_entry(main)
        assert capsys.readouterr().err == "error: mine\n"
    else:
        run_entry(main)
    assert went_on == ([] if ends else [True])


def run_script(root, *arguments, cwd=None, script="train.py"):
    command = [sys.executable, str(root / script), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("multirun", [[], ["-m", "seed=1,2"]])
@pytest.mark.slow
def test_a_wrong_command_line_from_elsewhere_fails_with_one_message(root, tmp_path, multirun):
    wrong = ("datamodule=flickr.yaml", "datamodule.batch_size=0", f"paths.log_dir={tmp_path}")
    done = run_script(root, *multirun, *wrong, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("datamodule.batch_size=0; expected") == 1
    assert "Traceback" not in done.stderr
    assert "Error executing job" not in done.stderr


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
@pytest.mark.slow
def test_help_lists_the_settings(root, tmp_path, script):
    text = run_script(root, "--help", cwd=tmp_path, script=script).stdout
    for expected in ("datamodule: ", "trainer: auto, cpu, ddp", "datamodule.batch_size", "ckpt_path=last"):
        assert expected in text


@pytest.mark.slow
def test_every_fault_of_a_command_line_is_reported_at_once():
    overrides = [
        "model=vit", "trainer.max_epoch=3", "foo", "datamodule=flickr.yaml",
        "trainer.precision=fp8", "~callbacks.nothing", "batch_size=3", "model=vit_gtp2", "model.lr=1",
    ]  # fmt: skip
    found = "\n".join(find_faults(overrides, "train"))
    for expected in (
        "foo cannot be read; expected key=value",
        "model=vit; expected one of vit_gpt2, vit_gpt2_tiny",
        "trainer.max_epoch=3; expected a key of the config; did you mean trainer.max_epochs?",
        "~callbacks.nothing; Could not delete",
        "batch_size=3; expected a key of the config; did you mean datamodule.batch_size?",
        "did you mean model.optimizer.lr?",
        "trainer.precision=fp8; expected",
    ):
        assert expected in found
    assert len(found.splitlines()) == 8


@pytest.mark.parametrize(
    "overrides",
    [
        ["logger=none.yaml", "+new.key=1", "~callbacks.early_stopping", "hydra.run.dir=x", "-m"],
        ["--cfg", "job", "trainer=cpu,gpu", "model.optimizer.lr=interval(0,1)"],
        ["datamodule.scope_only=true", "datamodule=medicat", "datamodule.data_dir=."],  # groups come first
    ],
)
@pytest.mark.slow
def test_right_overrides_have_no_fault(overrides):
    assert find_faults(overrides, "train") == []


def test_without_a_base_config_hydras_own_text_stands(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["none.py", "seed=1"])
    assert message(ConfigCompositionException("broken\nin line 3")) == "error: broken in line 3"


def test_garbage_is_collected_again_after_heavy_imports(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with heavy_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()


@pytest.mark.parametrize(
    ("value", "character", "quoted"),
    [
        ("/a/x=1", "'='", "/a/x=1"),
        ("/a/(2024)", "'('", "/a/(2024)"),
        ("/a/[1]", "'['", "/a/[1]"),
        ("~/photos", "'~'", f"{Path.home()}/photos"),
    ],
)
def test_a_value_that_needs_quotes_names_the_character_and_shows_quoting_that_works(value, character, quoted):
    line = quoting_hint(f"datamodule.data_dir={value}")
    assert f"because of the character {character}" in line
    assert line.endswith(f"write \"datamodule.data_dir='{quoted}'\"")
    (argument,) = shlex.split(line.rpartition("write ")[2])
    assert OverridesParser.create().parse_override(argument).value() == quoted


def test_a_value_that_cannot_be_read_is_no_second_error_about_the_default_folder():
    assert len(find_faults(["datamodule=folder", "datamodule.data_dir=/a/(2024)"], "train")) == 1


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("+trainer.gradient_clip_val=0.5", "++trainer.gradient_clip_val=0.5"),
        ("+new=1", "+new=1"),
        ("++trainer.max_epochs=1", "++trainer.max_epochs=1"),
        ("logger=null", "logger=none"),
        ("+callbacks=null", "callbacks=none"),
    ],
)
def test_clear_overrides_that_hydra_refuses_are_rewritten(argument, expected):
    assert normalize_override(argument) == expected


def test_a_search_for_a_metric_that_no_run_has_is_refused():
    assert optimized_value({"val/loss_best": 0.5}, "val/loss_best") == 0.5
    assert optimized_value({"val/loss_best": 0.5}, None) is None
    with pytest.raises(UserError, match="set optimized_metric=val/loss_best"):
        optimized_value({"val/loss_best": 0.5, "test/cider_d": 1.0}, "val/los_best")


def test_values_of_a_small_command_take_the_type_of_their_default():
    found = parse_command(["checkpoint=a=b", "beams=2", "fraction=1", "onnx=True"], DEFAULTS)
    assert found == {"checkpoint": "a=b", "out": "x.csv", "beams": 2, "fraction": 1.0, "onnx": True}


def test_tilde_is_the_home_folder_in_settings_and_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("USERPROFILE", "/home/ann")
    found = parse_command(["checkpoint=~/run", "out=~/a.csv", "~/images/*.jpg"], DEFAULTS, positional="paths")
    assert (found["checkpoint"], found["out"]) == ("/home/ann/run", "/home/ann/a.csv")
    assert found["paths"] == ["/home/ann/images/*.jpg"]


def test_a_pattern_or_file_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b.jpg").touch()
    found = parse_command(["exp=*/*.jpg", "a=b.jpg", "c.jpg", "checkpoint=x"], DEFAULTS, positional="paths")
    assert found["paths"] == ["exp=*/*.jpg", "a=b.jpg", "c.jpg"]
    assert found["checkpoint"] == "x"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["chekpoint=x"], r"'chekpoint=x' is no argument; did you mean checkpoint=\.\.\.\?"),
        (["checkpoint"], "'checkpoint' is no argument"),
        ([], "checkpoint not given; expected checkpoint="),
        (["checkpoint=x", "beams=two"], "beams='two'; expected a valid integer; set beams=4"),
        (["checkpoint=x", "fraction=half"], "fraction='half'; expected a valid number; set fraction=0.5"),
        (["checkpoint=x", "onnx=maybe"], "onnx='maybe'; expected a valid boolean; set onnx=false"),
    ],
)
def test_mistakes_in_a_small_command_are_named(arguments, expected):
    with pytest.raises(UserError, match=expected):
        parse_command(arguments, DEFAULTS)


def test_exit_statuses_of_a_small_command(capsys):
    def fail(error):
        def main(arguments):
            raise error

        return main

    run_command(lambda arguments: "done", [])
    run_command(fail(UserError("not reached")), ["--help"], "usage: x=...")
    assert capsys.readouterr().out == "usage: x=...\n"
    for main, status, text in (
        (lambda arguments: 2, 2, ""),
        (fail(UserError("key=\x1b[2J\u202e; expected 2")), 1, "error: key=\\x1b[2J\\u202e; expected 2\n"),
        (fail(KeyboardInterrupt()), 130, "stopped\n"),
    ):
        with pytest.raises(SystemExit) as caught:
            run_command(main, [])
        assert (caught.value.code, capsys.readouterr().err) == (status, text)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_reader_that_closes_the_pipe_is_no_error(root):
    code = """from src.utils.entry import run_command
run_command(lambda arguments: [print("x" * 99) for _ in range(9999)], [])"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, **pipes)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_short_command_ends_with_its_status_and_all_it_printed():
    code = "import sys; from src.utils.entry import run_short_command; run_short_command(lambda _: print('x') or 2, [])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "x\n", "")
