"""Both notebooks run from top to bottom, in this process, on the tiny model and with no network."""

import json
import shlex
from collections.abc import Callable

import matplotlib
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from tests.tasks.running import run_eval, run_train

pytestmark = pytest.mark.slow


@pytest.fixture
def run(root):
    """Return a function that runs a notebook's cells and returns what they print and show, as text."""
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.enable_gui = lambda _: None  # there is none

    def run_cells(name: str, system: Callable[[list[str]], object] = list) -> str:
        shell.system = lambda command: system(shlex.split(command.format_map(shell.user_ns)))
        cells = [cell for cell in json.loads((root / name).read_text())["cells"] if cell["cell_type"] == "code"]
        with capture_output() as captured:
            for source in ("".join(cell["source"]) for cell in cells):
                if "%tensorboard" not in source:
                    shell.run_cell(source).raise_error()
        return captured.stdout + "".join(str(list(output.data)) for output in captured.outputs)

    yield run_cells
    matplotlib.use("agg")
    InteractiveShell.clear_instance()


def test_demo_shows_scores_images_attention_and_captions(run, root, monkeypatch):
    monkeypatch.chdir(root)
    text = run("demo.ipynb")
    assert "CIDEr-D" in text
    assert text.count("image/png") == 2  # captioned images, attention maps
    assert "display.Image" in text  # the curves
    assert "Late in the evening, " in text  # captions of the three images, without blanks before punctuation


def test_run_flickr_trains_scores_and_shows(run, tmp_path, monkeypatch, flickr_folder, tiny_checkpoint):
    (tmp_path / "train.py").touch()  # where the notebook looks for the project
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPTIONER_DATA", "datamodule=flickr")
    monkeypatch.setenv("CAPTIONER_MODEL", "model.generation.num_beams=1")
    monkeypatch.setenv("CAPTIONER_MORE", "trainer=default trainer.max_steps=2")
    began = []

    def system(command: list[str]) -> None:
        script, settings = command[1], command[2:-3]
        began.append(script)
        if script.endswith(".py"):  # on a terminal a bar would fill hundreds of lines
            assert command[-3:] == ["2>&1", "|", "cat"]
        if script == "train.py":
            run_train(tmp_path / "logs" / "train" / "runs" / "one", tiny_checkpoint, flickr_folder, *settings)
        elif script == "eval.py":
            run_eval(tmp_path / "logs" / "eval" / "runs" / "one", *settings)

    assert "CIDEr-D" in run("run_flickr.ipynb", system)
    assert began[1:] == ["train.py", "eval.py"]
