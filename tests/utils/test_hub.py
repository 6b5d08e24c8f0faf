"""A model comes from the hub once; without one, a line says what to fetch. Runs are processes of their own."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from transformers import VisionEncoderDecoderModel

from tests.utils.composing import ROOT
from tests.utils.loopback_hub import LoopbackHub, commit

REPO, CUT = "someone/a-captioner", "someone/a-cut-one"
LOAD = """
import sys
from src.utils import hub
from src.models.pretrained import load_captioner
from src.utils.errors import UserError
for line in sys.stdin:
    checkpoint, _, revision = line.strip().partition("@")
    hub.is_hub_reachable.cache_clear()  # as in a run that begins now
    try:
        found = load_captioner(checkpoint, revision or None)
        print("loaded", found.base_id, found.model.encoder.layernorm.bias[0].item(), flush=True)
    except UserError as error:
        print("error:", error, flush=True)
"""


@pytest.fixture(scope="module")
def hub(tiny_checkpoint, tmp_path_factory):
    """Two revisions of a captioner in the layout of 2022: a pickled file and buffers that no model has today.

    Beside it another one as it is saved today.
    """
    folders = {}
    for number, revision in enumerate(("main", "v2"), 1):
        folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("hub") / revision)
        model = VisionEncoderDecoderModel.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        torch.nn.init.constant_(model.encoder.layernorm.bias, number)
        buffers = {"decoder.transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
        torch.save(model.state_dict() | buffers, folder / "pytorch_model.bin")
        folders[revision] = folder
    return LoopbackHub({REPO: folders, CUT: {"main": tiny_checkpoint}})


@contextmanager
def loading(hub, home, **variables):
    """Yield `load(checkpoint)`, which returns the line that a process with this hub and cache prints.

    It prints nothing else, neither a load report nor a progress bar.
    """
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"} | variables
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", LOAD]
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:

        def load(checkpoint):
            process.stdin.write(f"{checkpoint}\n")
            process.stdin.flush()
            return process.stdout.readline().rstrip("\n")

        try:
            yield load
            printed = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (*printed, process.returncode) == ("", "", 0)


@pytest.mark.slow
def test_a_model_comes_from_the_hub_once_and_every_failure_is_one_line(hub, tmp_path):
    with loading(hub, tmp_path) as load:
        with hub.running():
            assert load(REPO) == f"loaded {REPO} 1.0"
            assert load(f"{REPO}@v2") == f"loaded {REPO}@v2 2.0"
            assert re.match(f"error: .*{REPO}' at revision 'v3' has no such revision on", load(f"{REPO}@v3"))
            assert re.match(f"error: .*'someone/else' does not exist on {hub.url};", load("someone/else"))
            assert f"GET /{REPO}/resolve/{commit('main')}/pytorch_model.bin" in hub.requests
            assert not any("POST" in line or "discussions" in line for line in hub.requests)
            hub.cut = {"model.safetensors"}
            assert "its model is neither in the local cache nor" in load(CUT)
            hub.cut = set()
            assert load(CUT) == f"loaded {CUT} 0.0"  # the download goes on
        line = load("someone/a-third")  # nobody answers
        assert "its config is neither in the local cache nor" in line
        assert "hf download someone/a-third --local-dir <folder>" in line
        assert line.endswith("set model.checkpoint=<folder>")
    with loading(hub, tmp_path, HF_HUB_OFFLINE="1") as load:
        assert load(REPO) == f"loaded {REPO} 1.0"
        assert load(f"{REPO}@v2") == f"loaded {REPO}@v2 2.0"
