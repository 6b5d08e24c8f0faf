"""Files from a stranger: nothing of theirs runs, whichever way they come in."""

import ast
import csv
import io
import json
import os
import pickle
import shutil
from pathlib import Path

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

    def __init__(self, marker: Path) -> None:
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


def open_it(file: Path, base: Path, images: Path, folder: Path) -> None:
    Captioner.from_checkpoint(file)


def train_on(file: Path, base: Path, images: Path, folder: Path) -> None:
    run_train(folder, base, images, f"ckpt_path={file}")


def train_from(base: Path, _: Path, images: Path, folder: Path) -> None:
    run_train(folder, base, images)


def score(file: Path, base: Path, images: Path, folder: Path) -> None:
    run_eval(folder, f"ckpt_path={file}")


@pytest.mark.parametrize("plain", [False, True], ids=["in a whole file", "a bare pickle"])
@pytest.mark.parametrize("entry", [open_it, train_on, score])
def test_code_in_a_checkpoint_does_not_run(entry, plain, marker, tiny_checkpoint, flickr_folder, tmp_path):
    file = tmp_path / "best.ckpt"
    if plain:
        file.write_bytes(pickle.dumps({"state_dict": Attack(marker)}))
    else:
        torch.save({"state_dict": {}, METADATA_KEY: {"format": 1}, "extra": Attack(marker)}, file)
    with pytest.raises(UserError, match=r"best\.ckpt' (holds more than tensors|is damaged)"):
        entry(file, tiny_checkpoint, flickr_folder, tmp_path / "run")


@pytest.mark.parametrize("section", ["model", "datamodule", "optimizer"])
def test_a_checkpoint_cannot_name_what_scoring_builds(section, marker, tiny_checkpoint, flickr_folder, tmp_path):
    save_run(tmp_path / "theirs", tiny_checkpoint)
    file = tmp_path / "theirs" / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    attack = {"_target_": "os.mkdir", "path": str(marker)}
    config = content[METADATA_KEY]["config"]
    if section == "optimizer":
        config["datamodule"] = {**config["datamodule"], "data_dir": str(flickr_folder), "seed": {"x": attack}}
    else:
        config[section] = attack
    torch.save(content, file)
    with pytest.raises(UserError, match=r"os\.mkdir.*nothing of it was built"):
        run_eval(tmp_path / "run", f"ckpt_path={file}")


@pytest.mark.parametrize("entry", [open_it, train_from])
def test_code_in_a_pytorch_model_bin_does_not_run(entry, marker, tiny_checkpoint, flickr_folder, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    for whole in (True, False):
        if whole:
            torch.save({"encoder.x": Attack(marker)}, folder / "pytorch_model.bin")
        else:
            (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"encoder.x": Attack(marker)}))
        with pytest.raises((UserError, InstantiationException), match="was not loaded, since that could run code"):
            entry(folder, tiny_checkpoint, flickr_folder, tmp_path / "run")


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


DANGEROUS = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "numpy.load", "np.load",
             "yaml.load", "joblib.load", "tarfile.extractall"}  # fmt: skip


def calls(root: Path):
    """Every call in the project's code, with its name as written."""
    for path in [*(root / "src").rglob("*.py"), *root.glob("*.py"), *(root / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.name}:{node.lineno}", ast.unparse(node.func), node


def test_no_call_in_the_project_runs_what_a_file_holds(root):
    seen = set()
    for place, name, node in calls(root):
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert name not in DANGEROUS, place
        assert given.get("shell") != "True", place
        if name == "torch.load":
            assert given["weights_only"] == "True", place
        if name.endswith(".from_pretrained"):
            assert given["trust_remote_code"] == "False", place
        seen.add(name)
    assert {
        "torch.load",
        "kind.from_pretrained",
        "subprocess.run",
    } <= seen  # that there is something to look at


def test_a_model_that_brings_its_own_code_is_refused(marker, tiny_checkpoint, tmp_path):
    folder = tmp_path / "theirs"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "theirs.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Model: pass\n")
    for name, key in (("config.json", "AutoConfig"), ("preprocessor_config.json", "AutoImageProcessor")):
        shutil.copy(tiny_checkpoint / name, folder / name)
        content = json.loads((folder / name).read_text())
        kind = {"model_type": "theirs"} if name == "config.json" else {"image_processor_type": "Theirs"}
        (folder / name).write_text(json.dumps(content | kind | {"auto_map": {key: "theirs.Model"}}))
        with pytest.raises(UserError, match="cannot be loaded"):
            Captioner.from_checkpoint(folder)
        shutil.copy(tiny_checkpoint / name, folder / name)


FORMULA_NAME = "=cmd|' C calc'!A0.png"
HTML_NAME = "<img src=x onerror=alert(1)>.png"
CAPTIONS = (
    '=HYPERLINK("http://elsewhere","click")',
    "+1+cmd|' /C calc'!A0",
    "</script><script>alert(1)</script>",
    "\x1b[2J\x1b]0;owned\x07 a dog",
    "@SUM(A1) $(touch owned) `touch owned`",
)


@pytest.fixture(scope="module")
def hostile_run(tiny_checkpoint, tmp_path_factory):
    """A run over images and captions whose names and texts attack all that shows them."""
    data, run = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("logs") / "run"
    (data / "Images").mkdir()
    names = [FORMULA_NAME, HTML_NAME, *(f"-{number}.png" for number in range(10))]
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(["image", "caption"])
    for number, name in enumerate(names):
        Image.new("RGB", (32, 32), (20 * number, 0, 99)).save(data / "Images" / name.replace("/", ""))
        rows.writerows([name, caption] for caption in CAPTIONS)
    rows.writerow(["\x1b[31mgone\n.png", "=1+1"])
    (data / "captions.txt").write_text(file.getvalue())
    run_train(run, tiny_checkpoint, data, "trainer.max_steps=1", "datamodule.max_skipped=0.5",
              "datamodule.split_ratios=[0.4,0.2,0.4]", "zero_shot=false", "logger=csv")  # fmt: skip
    return run


def test_image_ids_and_captions_in_csv_files_stand_as_they_are_in_the_data(hostile_run):
    with (hostile_run / "splits.csv").open(newline="") as file:
        ids = {row["image_id"] for row in csv.DictReader(file)}
    with (hostile_run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {FORMULA_NAME, HTML_NAME, "-0.png"} <= ids
    assert rows
    assert {row["image_id"] for row in rows} <= ids
    assert all(row["reference_1"] == CAPTIONS[0] for row in rows)


def test_no_file_of_a_run_moves_a_terminals_cursor(hostile_run):
    texts = {path: path.read_text(errors="replace") for path in hostile_run.rglob("*") if path.suffix in TEXT}
    assert len(texts) > 5
    assert not [path.name for path, text in texts.items() if "\x1b" in text]
    assert r"\x1b[31mgone" in (hostile_run / "skipped.csv").read_text()


TEXT = {".csv", ".json", ".html", ".log", ".yaml"}


def test_the_report_holds_no_script_or_image_of_theirs(hostile_run):
    page = (hostile_run / "report.html").read_text()
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
