"""A captioner that was given away captions as before, in the hands of plain transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src import export as command
from src.captioner import Captioner
from src.demo.synthetic.datamodules import write_scenes
from src.export import export, main, upload
from src.models.restore import open_captioner
from src.utils.command import run_command
from src.utils.errors import UserError
from tests.saved_run import save_run

PLAIN = """
import importlib.util, json, sys
assert importlib.util.find_spec("src") is None
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel
folder, *pictures = sys.argv[1:]
model = VisionEncoderDecoderModel.from_pretrained(folder, dtype=torch.float32).eval()
processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
captions = []
for start in range(0, len(pictures), 20):
    images = [Image.open(path).convert("RGB") for path in pictures[start : start + 20]]
    pixels = processor(images, return_tensors="pt").pixel_values
    ids = model.generate(pixels)
    captions += [" ".join(text.split()) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
print(json.dumps(captions))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "run"
    save_run(folder, tiny_checkpoint)
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return export(run, tmp_path_factory.mktemp("out") / "captioner")


@pytest.mark.slow
def test_plain_transformers_captions_a_hundred_pictures_alike(run, exported, tmp_path):
    """In a process that has no part of this project on its path."""
    write_scenes(tmp_path / "scenes", 100, "plain", seed=5, size=32)
    pictures = sorted((tmp_path / "scenes" / "Images").iterdir())
    expected = Captioner.from_checkpoint(run, precision="32").caption(pictures)
    assert Captioner.from_checkpoint(exported, precision="32").caption(pictures) == expected

    (tmp_path / "plain.py").write_text(PLAIN)
    words = [sys.executable, "-P", str(tmp_path / "plain.py"), str(exported), *map(str, pictures)]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    assert len(set(expected)) > 10


def test_the_folder_holds_what_transformers_asks_for_and_no_pickle(exported):
    names = {path.name for path in exported.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "README.md"} <= names
    assert {"preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".ckpt")) for name in names)
    how = json.loads((exported / "generation_config.json").read_text())
    assert (how["max_length"], how["num_beams"], how["do_sample"]) == (12, 3, False)


def test_who_may_read_the_files_is_as_for_any_new_file(exported, tmp_path):
    (tmp_path / "new").touch()
    assert {path.stat().st_mode for path in exported.iterdir()} == {(tmp_path / "new").stat().st_mode}


def test_adapters_become_part_of_the_weights(tiny_checkpoint, tmp_path, flickr_folder):
    module = save_run(tmp_path / "run", tiny_checkpoint, train="lora")
    export(tmp_path / "run", tmp_path / "out")
    names = open_captioner(tmp_path / "out").model.state_dict().keys()
    assert names == open_captioner(tiny_checkpoint).model.state_dict().keys()
    pictures = sorted((flickr_folder / "Images").iterdir())[:5]
    captioner = Captioner.from_checkpoint(tmp_path / "out", precision="32")
    pixels = torch.stack([captioner.processor.image(captioner.load(path)) for path in pictures])
    with torch.no_grad():
        states = module.model.encoder(pixels).last_hidden_state
    assert torch.allclose(captioner.encode(pixels), states, atol=1e-5)
    assert captioner.caption(pictures) == module.caption(states)


def test_half_precision_halves_the_file(run, exported, tmp_path):
    small = export(run, tmp_path / "small", dtype="float16")
    assert (small / "model.safetensors").stat().st_size < 0.6 * (
        exported / "model.safetensors"
    ).stat().st_size
    assert "in float16" in (small / "README.md").read_text()


def test_a_saved_folder_can_be_given_away_again(exported, tmp_path):
    again = export(exported, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()
    assert "saved from `captioner`" in (again / "README.md").read_text()


def test_an_empty_folder_may_wait_for_it(run, tmp_path):
    (tmp_path / "out").mkdir()
    assert (export(run, tmp_path / "out") / "config.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dtype": "int8"}, "dtype='int8'; expected one of float32, float16, bfloat16"),
        ({"out": "full"}, "is there and not empty; expected a new folder"),
        ({"out": "file.txt"}, "is there and not empty"),
        ({"out": "file.txt/out"}, "cannot be written"),
        ({"checkpoint": "none.ckpt"}, "checkpoint='none.ckpt' does not exist"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(run, tmp_path, monkeypatch, settings, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match=told):
        export(**{"checkpoint": run, "out": "new", **settings})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "full"]


class Hub:
    """Stands for `huggingface_hub.HfApi`."""

    calls: list[tuple]

    def __init__(self) -> None:
        Hub.calls = []

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> None:
        if repo.startswith("closed/"):
            raise OSError("no connection\nmore")
        Hub.calls.append((repo, private, exist_ok))

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> str:
        Hub.calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))
        return f"https://hub/{repo_id}"


def test_the_folder_goes_to_the_hub_private_unless_said(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    main([f"checkpoint={run}", f"out={tmp_path / 'out'}", "push_to_hub=me/captioner"])
    assert Hub.calls[0] == ("me/captioner", True, True)
    assert "model.safetensors" in Hub.calls[1][1]
    assert upload(tmp_path / "out", "me/open", private=False) == "https://hub/me/open"
    assert Hub.calls[0] == ("me/open", False, True)
    assert "loads it" in capsys.readouterr().out


def test_an_upload_that_fails_is_one_line_and_leaves_the_folder(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(
        UserError, match=r"push_to_hub='closed/x' failed \(no connection\); .* is whole"
    ) as caught:
        export(run, tmp_path / "out", push_to_hub="closed/x")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_help_tells_every_argument(capsys):
    run_command(main, ["--help"], command.__doc__)
    told = capsys.readouterr().out
    assert all(f"{name}=" in told for name in command.DEFAULTS)
