"""Files from a stranger: nothing of theirs runs, whichever way they come in."""

import csv
import json
import os
import pickle
import shutil

import pytest
import torch
from hydra.errors import InstantiationException
from PIL import Image

from src.callbacks.feature_cache import FeatureCache
from src.captioner import Captioner
from src.models.checkpoint import METADATA_KEY
from src.utils.errors import UserError
from tests.faults.tiny import Run, differences
from tests.saved_run import save_run
from tests.tasks.running import run_eval, run_train


class Attack:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    """Where the attack would leave its mark; that it can is shown first."""
    path = tmp_path / "owned"
    pickle.loads(pickle.dumps(Attack(path)))
    path.rmdir()
    yield path
    assert not path.exists()


@pytest.fixture
def enter(tiny_checkpoint, flickr_folder, tmp_path):
    """Return a function that gives a file to an entry."""

    def give(entry, file):
        if entry == "open":
            Captioner.from_checkpoint(file)
        elif entry == "score":
            run_eval(tmp_path / "run", f"ckpt_path={file}")
        elif entry == "resume":
            run_train(tmp_path / "run", tiny_checkpoint, flickr_folder, f"ckpt_path={file}")
        else:
            run_train(tmp_path / "run", file, flickr_folder)

    return give


@pytest.mark.parametrize("plain", [False, True], ids=["in a whole file", "a bare pickle"])
@pytest.mark.parametrize("entry", ["open", "resume", "score"])
def test_code_in_a_checkpoint_does_not_run(entry, plain, enter, marker, tmp_path):
    file = tmp_path / "best.ckpt"
    if plain:
        file.write_bytes(pickle.dumps({"state_dict": Attack(marker)}))
    else:
        torch.save({"state_dict": {}, METADATA_KEY: {"format": 1}, "extra": Attack(marker)}, file)
    with pytest.raises(UserError, match=r"best\.ckpt' (holds more than tensors|is damaged)"):
        enter(entry, file)


@pytest.mark.parametrize("section", ["model", "datamodule", "seed"])
def test_a_checkpoint_cannot_name_what_scoring_builds(section, enter, marker, tiny_checkpoint, flickr_folder, tmp_path):
    save_run(tmp_path / "theirs", tiny_checkpoint)
    file = tmp_path / "theirs" / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    attack = {"_target_": "os.mkdir", "path": str(marker)}
    config = content[METADATA_KEY]["config"]
    if section == "seed":
        config["datamodule"] |= {"data_dir": str(flickr_folder), "seed": {"x": attack}}
    else:
        config[section] = attack
    torch.save(content, file)
    with pytest.raises(UserError, match=r"os\.mkdir.*nothing of it was built"):
        enter("score", file)


@pytest.mark.parametrize("entry", ["open", "train"])
def test_code_in_a_pytorch_model_bin_does_not_run(entry, enter, marker, tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    for save in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        save({"encoder.x": Attack(marker)}, folder / "pytorch_model.bin")
        with pytest.raises((UserError, InstantiationException), match="was not loaded, since that could run code"):
            enter(entry, folder)


def test_a_model_that_brings_its_own_code_is_refused(enter, marker, tiny_checkpoint, tmp_path):
    kinds = {"config.json": ("AutoConfig", {"model_type": "theirs"}),
             "preprocessor_config.json": ("AutoImageProcessor", {"image_processor_type": "Theirs"})}  # fmt: skip
    for name, (key, kind) in kinds.items():
        folder = shutil.copytree(tiny_checkpoint, tmp_path / key)
        (folder / "theirs.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Model: pass\n")
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | kind | {"auto_map": {key: "theirs.Model"}}))
        with pytest.raises(UserError, match="cannot be loaded"):
            enter("open", folder)


@pytest.mark.slow
def test_a_pickle_in_the_feature_cache_is_thrown_away(marker, tiny_checkpoint, flickr_folder, tmp_path, caplog):
    def run(name):
        cache = FeatureCache(str(tmp_path / "cache"), dtype="fp32")
        return Run(tiny_checkpoint, flickr_folder, tmp_path / name, more=(cache,), max_epochs=1)

    first = run("first")
    (shard,) = (tmp_path / "cache").glob("*/*/*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(pickle.dumps(Attack(marker)))
    second = run("second")
    assert caplog.text.count("is damaged") == 1
    assert differences(first.end(), second.end()) == []
    assert shard.read_bytes() == whole


FORMULA_NAME = "=cmd|' C calc'!A0.png"
HTML_NAME = "<img src=x onerror=alert(1)>.png"
CAPTIONS = (
    '=HYPERLINK("http://elsewhere","click")',
    "</script><script>alert(1)</script>",
    "\x1b[2J\x1b]0;owned\x07 a dog",
    "@SUM(A1) $(touch owned) `touch owned`",
)


@pytest.mark.slow
def test_names_and_captions_that_attack_stay_text(tiny_checkpoint, tmp_path):
    """In csv files they stand as they are in the data; no terminal's cursor is moved and no script is in the report."""
    run, names = tmp_path / "run", [FORMULA_NAME, HTML_NAME, *(f"-{number}.png" for number in range(10))]
    (tmp_path / "Images").mkdir()
    for name in names:
        Image.new("RGB", (32, 32)).save(tmp_path / "Images" / name)
    with (tmp_path / "captions.txt").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        rows.writerows([name, caption] for name in names for caption in CAPTIONS)
        rows.writerow(["\x1b[31mgone\n.png", "=1+1"])
    run_train(run, tiny_checkpoint, tmp_path, "trainer.max_steps=1", "datamodule.max_skipped=0.5",
              "datamodule.split_ratios=[0.4,0.2,0.4]", "zero_shot=false", "logger=csv")  # fmt: skip
    with (run / "splits.csv").open(newline="") as file:
        assert {row["image_id"] for row in csv.DictReader(file)} == set(names)
    with (run / "predictions.csv").open(newline="") as file:
        assert {row["reference_1"] for row in csv.DictReader(file)} == {CAPTIONS[0]}
    for path in run.rglob("*"):
        if path.suffix in (".csv", ".json", ".html", ".log", ".yaml"):
            assert "\x1b" not in path.read_text(errors="replace"), path
    assert r"\x1b[31mgone" in (run / "skipped.csv").read_text()
    page = (run / "report.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
