"""A model comes from the hub once; without one, a line says what to fetch. Each run is a process of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import VisionEncoderDecoderModel

from tests.models.loopback_hub import LoopbackHub, commit

ROOT = Path(__file__).parents[2]
REPO = "someone/a-captioner"
LOAD = """
import sys
from src.models.pretrained import load_captioner
from src.utils.errors import UserError
for line in sys.argv[1:]:
    checkpoint, _, revision = line.partition("@")
    try:
        found = load_captioner(checkpoint, revision or None)
        print("loaded", found.base_id, found.model.encoder.layernorm.bias[0].item())
    except UserError as error:
        print("error:", error)
"""


@pytest.fixture(scope="module")
def hub(tiny_checkpoint, tmp_path_factory):
    """Two revisions of a captioner in the layout of 2022: a pickled file and buffers that no model has today."""
    folders = {}
    for number, revision in enumerate(("main", "v2"), 1):
        folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("hub") / revision)
        model = VisionEncoderDecoderModel.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        torch.nn.init.constant_(model.encoder.layernorm.bias, number)
        buffers = {"decoder.transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
        torch.save(model.state_dict() | buffers, folder / "pytorch_model.bin")
        folders[revision] = folder
    return LoopbackHub({REPO: folders})


def run(hub, home, *checkpoints, **variables):
    """Load checkpoints in a new process whose hub is `hub` and whose cache is `home`."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"} | variables
    command = [sys.executable, "-c", LOAD, *checkpoints]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_the_first_run_downloads_and_the_second_needs_no_hub(hub, tmp_path):
    with hub.running():
        said, noise = run(hub, tmp_path, REPO, f"{REPO}@v2", f"{REPO}@v3", "someone/else")
        assert said[:2] == [f"loaded {REPO} 1.0", f"loaded {REPO}@v2 2.0"]
        assert re.match(f"error: .*{REPO}' at revision 'v3' has no such revision on {hub.url};", said[2])
        assert re.match(f"error: .*'someone/else' is not there on {hub.url};", said[3])
        assert len(said) == 4
        assert noise == ""  # neither a load report nor a progress bar
        assert f"GET /{REPO}/resolve/{commit('main')}/pytorch_model.bin" in hub.requests
        asked = {line.split("/resolve/")[0].split("/", 1)[1] for line in hub.requests if "/resolve/" in line}
        assert asked <= {REPO, "someone/else"}
        assert not any("POST" in line or "discussions" in line for line in hub.requests)
    said, noise = run(hub, tmp_path, REPO, f"{REPO}@v2", HF_HUB_OFFLINE="1")
    assert said == [f"loaded {REPO} 1.0", f"loaded {REPO}@v2 2.0"]
    assert noise == ""


def test_a_run_without_a_hub_says_what_to_fetch_from_where(hub, tmp_path):
    said, noise = run(hub, tmp_path, REPO)  # nobody answers at its address any more
    (line,) = said
    assert line.startswith(f"error: model.checkpoint='{REPO}': its config is neither in the local cache nor")
    assert f"hf download {REPO} --local-dir <folder>" in line
    assert f"{hub.url}/{REPO}" in line
    assert line.endswith("set model.checkpoint=<folder>")
    assert noise == ""


def test_a_cut_connection_ends_in_one_line_and_the_next_run_mends_it(tiny_checkpoint, tmp_path):
    hub = LoopbackHub({REPO: {"main": tiny_checkpoint}})
    with hub.running():
        hub.cut = {"model.safetensors"}
        (line,), noise = run(hub, tmp_path, REPO)
        assert line.startswith(
            f"error: model.checkpoint='{REPO}': its model is neither in the local cache nor"
        )
        assert noise == ""
        hub.cut = set()
        assert run(hub, tmp_path, REPO)[0] == [f"loaded {REPO} 0.0"]
    assert (tmp_path / "hub" / "models--someone--a-captioner" / "snapshots" / commit("main")).is_dir()
