"""Signatures read from source are those that Python itself sees, and nothing is imported to get them."""

import inspect
import subprocess
import sys

import pytest
from hydra.utils import get_object

from src.utils.signatures import is_missing, read_constant, read_signature

TARGETS = [
    "src.datamodule.flickr.FlickrDataModule",
    "src.callbacks.checkpointing.LastCheckpoint",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.loggers.CSVLogger",
    "pytorch_lightning.loggers.TensorBoardLogger",
    "torch.optim.AdamW",
    "src.models.optimization.linear_with_warmup",
]


@pytest.mark.parametrize("target", TARGETS)
def test_names_are_those_that_inspect_finds(target):
    found = read_signature(target)
    real = inspect.signature(get_object(target)).parameters.values()
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = {parameter.name for parameter in real if parameter.kind not in kinds}
    assert found is not None
    assert names <= set(found.parameters)
    if not any(parameter.kind == kinds[0] for parameter in real):
        assert set(found.parameters) == names


def test_keywords_pass_on_to_the_base_class(tmp_path, monkeypatch):
    (tmp_path / "shapes_for_test.py").write_text(
        "from dataclasses import dataclass\n"
        "class Base:\n    def __init__(self, size: int, colour: str = 'red'): ...\n"
        "class Square(Base):\n    def __init__(self, corners: bool = True, **kwargs): ...\n"
        "class Plain(Base): ...\n"
        "class Open(Unknown):\n    def __init__(self, **kwargs): ...\n"
        "@dataclass\nclass Point:\n    x: float\n    y: float = 0.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    square = read_signature("shapes_for_test.Square")
    assert square is not None
    assert square.parameters == {"size": "int", "colour": "str", "corners": "bool"}
    assert square.required == {"size"}
    assert not square.open
    plain, point = read_signature("shapes_for_test.Plain"), read_signature("shapes_for_test.Point")
    assert plain is not None
    assert plain.parameters == {"size": "int", "colour": "str"}
    assert point is not None
    assert (point.parameters, point.required) == ({"x": "float", "y": "float"}, {"x"})
    unknown = read_signature("shapes_for_test.Open")
    assert unknown is not None
    assert unknown.open


def test_what_cannot_be_found_has_no_signature():
    assert read_signature("no_such_package_here.Thing") is None
    assert read_signature("torch.optim.NoSuchOptimizer") is None


def test_missing_packages_and_classes_are_named():
    assert is_missing("no_such_package_here.loggers.Thing") == "no_such_package_here"
    assert is_missing("src.datamodule.flickr.FlikrDataModule") == "src.datamodule.flickr.FlikrDataModule"
    assert is_missing("src.datamodule.flickr.FlickrDataModule") is None
    assert is_missing("pytorch_lightning.Trainer") is None


def test_constants_are_read():
    assert "last_blocks" in read_constant("src.models.freezing", "TRAIN_CHOICES")
    with pytest.raises(LookupError, match="NO_SUCH"):
        read_constant("src.models.freezing", "NO_SUCH")


def test_nothing_heavy_is_imported(root):
    code = (
        "import sys; from src.utils.signatures import read_signature; "
        "assert read_signature('pytorch_lightning.Trainer').parameters; "
        "assert not {'torch', 'pytorch_lightning', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
