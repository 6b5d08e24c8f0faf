"""How the two commands end: in lines, with a status, whatever went wrong."""

import os
import subprocess
import sys

import pytest
from hydra.errors import ConfigCompositionException, InstantiationException
from omegaconf.errors import ConfigKeyError

from src.utils import entry
from src.utils.entry import FULL_ERROR, leave, message, run_entry
from src.utils.errors import UserError
from src.utils.stopping import Stopped
from tests.utils.composing import job


def ending(error):
    """Status and text that an entry leaves for an error of its main."""

    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run_entry(main)
    return caught.value.code


def caused(error, cause):
    error.__cause__ = cause
    return error


def test_success_returns():
    assert run_entry(lambda: None) is None


def test_a_persons_mistake_is_one_line(capsys):
    assert ending(UserError("a=1; expected 2; set a=2")) == 1
    assert capsys.readouterr().err == "error: a=1; expected 2; set a=2\n"


def test_a_mistake_inside_a_target_is_found(capsys):
    assert ending(caused(InstantiationException("Error in call to target"), UserError("no such file"))) == 1
    assert capsys.readouterr().err == "error: no such file\n"


def test_a_kind_of_error_may_have_its_own_status(capsys):
    assert ending(Stopped(2, "; go on with ckpt_path=last")) == 130
    assert capsys.readouterr().err == "stopped by SIGINT; go on with ckpt_path=last\n"


def test_a_stop_of_all_processes_is_told_by_the_first(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert ending(Stopped(15, " after step 3", everywhere=True)) == 143
    assert capsys.readouterr().err == ""
    assert ending(Stopped(15, " alone")) == 143
    assert capsys.readouterr().err == "[rank 1] stopped by SIGTERM alone\n"


def test_ctrl_c(capsys):
    assert ending(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_fault_with_a_saved_traceback_is_short(capsys):
    error = RuntimeError("the wheel came off")
    error.add_note("the traceback is in /run/error.log")
    assert ending(error) == 1
    text = capsys.readouterr().err
    assert text == "error: RuntimeError: the wheel came off\nthe traceback is in /run/error.log\n"


def test_a_fault_without_one_shows_it(capsys):
    assert ending(RuntimeError("the wheel came off")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_switch_shows_every_traceback_and_is_put_back(capsys, monkeypatch):
    monkeypatch.setenv(FULL_ERROR, "1")
    assert ending(UserError("mine")) == 1
    assert "Traceback" in capsys.readouterr().err
    assert os.environ[FULL_ERROR] == "1"
    assert entry.OURS not in os.environ
    monkeypatch.delenv(FULL_ERROR)
    assert ending(UserError("mine")) == 1
    assert FULL_ERROR not in os.environ


def test_child_processes_keep_the_parents_choice(capsys, monkeypatch):
    """A process that Lightning starts finds Hydra's switch on by our doing, not by the person's."""
    monkeypatch.setenv(FULL_ERROR, "1")
    monkeypatch.setenv(entry.OURS, "line")
    monkeypatch.setenv("RANK", "1")
    assert ending(UserError("mine")) == 1
    assert capsys.readouterr().err == "[rank 1] error: mine\n"


@pytest.mark.parametrize(
    "error", [ConfigCompositionException("Could not override"), ConfigKeyError("no key")]
)
def test_hydras_errors_are_explained(error, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "seeed=1", "datamodule.download=true"])
    assert "seeed=1; expected a key of the config; did you mean seed?" in str(message(error))


@pytest.mark.parametrize(
    ("mode", "whole", "ends"),
    [("RUN", False, True), ("MULTIRUN", False, False), ("MULTIRUN", True, True)],
)
def test_a_job_ends_the_process_where_it_is_alone_or_all_are_meant(tmp_path, capsys, mode, whole, ends):
    went_on = []

    def main():
        with job(tmp_path, f"hydra.mode={mode}"):
            leave(UserError("mine"), whole=whole)
        went_on.append(True)

    if ends:
        with pytest.raises(SystemExit) as caught:
            run_entry(main)
        assert caught.value.code == 1
        assert capsys.readouterr().err == "error: mine\n"
    else:
        run_entry(main)
    assert went_on == ([] if ends else [True])


def test_a_caller_from_python_gets_the_exception(tmp_path):
    with job(tmp_path):
        assert leave(UserError("mine"), whole=True) is None


def train(root, *words, cwd=None, script="train.py"):
    command = [sys.executable, str(root / script), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_a_wrong_command_line_from_elsewhere(root, tmp_path):
    """From any working directory, without a traceback or a line of Hydra's own."""
    done = train(
        root, "datamodule=flickr.yaml", "datamodule.batch_size=0", f"paths.log_dir={tmp_path}", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "datamodule.batch_size=0; expected a whole number, 1 image or more" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Error executing job" not in done.stderr


def test_a_multirun_fails_with_one_message(root, tmp_path):
    done = train(root, "-m", "seed=1,2", "datamodule.batch_size=0", f"paths.log_dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("datamodule.batch_size=0; expected a whole number, 1 image or more") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_help_speaks_to_a_newcomer(root, tmp_path, script):
    done = train(root, "--help", cwd=tmp_path, script=script)
    assert done.returncode == 0, done.stderr
    for told in ("datamodule: ", "trainer: auto, cpu, ddp", "datamodule.batch_size", "ckpt_path=last"):
        assert told in done.stdout


def test_the_config_is_shown_without_heavy_imports(root, tmp_path):
    """`--cfg job` in under a second rests on this."""
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--cfg', 'job', 'datamodule=medicat.yaml'];\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "finally:\n  heavy = {'torch', 'pytorch_lightning', 'transformers', 'pandas', 'rich', 'numpy'}\n"
        "  print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "MedicatDataModule" in done.stdout


@pytest.mark.parametrize("words", [["--info", "searchpath"], ["--hydra-help"], ["--cfg", "hydra"]])
def test_hydras_own_flags_work(root, words):
    assert train(root, *words).returncode == 0


def test_shell_completion(root):
    done = train(root, "-sc", "install=bash")
    assert done.returncode == 0
    assert "complete" in done.stdout
