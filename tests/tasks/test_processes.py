"""Processes that `trainer=ddp` starts: none is left when one fails, and none is killed while it ends in order."""

import os
import signal
import subprocess
import sys
import time

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write
from pytorch_lightning.plugins.environments import LightningEnvironment

from src.tasks.building import build_trainer
from src.tasks.processes import Launcher
from src.utils.errors import UserError
from src.utils.stopping import StopSignal, listening, raise_stop
from tests.utils.composing import job

DDP = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 2, "strategy": "ddp",
       "precision": "32-true"}  # fmt: skip
READY = "import signal, sys, time; print(flush=True); "
SLEEP = "time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


class Fake(Launcher):
    """A launcher whose other process runs a line of Python."""

    grace = 0.2
    code = SLEEP

    def _start_children(self) -> None:
        os.environ["LOCAL_RANK"] = "0"  # as Lightning does: from now on it starts none
        before, _, code = self.code.rpartition("; ")
        child = subprocess.Popen(
            [sys.executable, "-c", f"{before or 'pass'}; {READY}{code}"], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        self.procs = [child]


@pytest.fixture
def launcher(monkeypatch):
    """Gone afterwards, with its process and its mark in the environment."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.delenv("LOCAL_RANK")
    launcher = Fake(LightningEnvironment(), 2, 1)
    yield launcher
    launcher.kill(signal.SIGKILL)
    launcher._leaving.set()


def fail():
    raise ValueError("the wheel came off")


@pytest.mark.parametrize(
    ("code", "status"), [("pass", 0), (SLEEP, -signal.SIGTERM), (DEAF + SLEEP, -signal.SIGKILL)]
)
def test_when_this_process_fails_the_other_may_end_or_is_told_to_or_is_killed(launcher, code, status):
    launcher.code = code
    with pytest.raises(ValueError, match="wheel"):
        launcher.launch(fail)
    assert [child.wait(5) for child in launcher.children] == [status]


def test_a_process_that_waits_for_a_lost_one_in_vain_is_told_to_stop(launcher, capfd):
    launcher.code = "sys.exit(3)"
    with listening(raise_stop), pytest.raises(StopSignal):
        launcher.launch(lambda: time.sleep(30))
    assert "ended with status 3; the others end too" in capfd.readouterr().err


def test_and_is_killed_where_it_does_not_hear(launcher):
    launcher.code = "sys.exit(3)"
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        launcher.launch(lambda: time.sleep(30))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_scoring_goes_on_when_the_other_process_has_no_more_to_do(launcher):
    launcher.code = "sys.exit(3)"
    heard = []
    with listening(heard.append):
        assert launcher.launch(lambda: "fitted") == "fitted"
        launcher.children[0].wait(5)
        time.sleep(0.8)
    assert heard == []


def test_the_trainer_gets_it_where_it_starts_processes():
    trainer = build_trainer(OmegaConf.create({"trainer": DDP}))
    assert isinstance(trainer.strategy.launcher, Launcher)
    assert trainer.strategy.launcher.num_processes == 2


def test_several_processes_in_a_multirun_are_refused(tmp_path):
    with job(tmp_path):
        hydra = HydraConfig.instance().cfg.hydra
        with read_write(hydra), open_dict(hydra):
            hydra.mode = RunMode.MULTIRUN
            hydra.launcher._target_ = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
        with pytest.raises(UserError, match=r"trainer\.strategy=ddp in a multirun .* set trainer=default"):
            build_trainer(OmegaConf.create({"trainer": DDP}))
