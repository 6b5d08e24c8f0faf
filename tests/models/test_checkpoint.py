"""Checkpoint files: what is rejected."""

import zipfile

import pytest
import torch

from src.models import checkpoint
from src.models.checkpoint import METADATA_KEY, match_weights, read_checkpoint
from src.utils.errors import UserError

CONTENT = {"format": 1, "base": "org/base", "base_sha256": "0" * 64, "config": {}}


def save(path, weights=None, **content):
    torch.save({"state_dict": weights or {"w": torch.ones(999)}, METADATA_KEY: CONTENT | content}, path)
    return path


def assert_rejected(path, match):
    with pytest.raises(UserError, match=match) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_base_is_hashed_once_until_its_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "CACHED_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, file = torch.nn.Linear(2, 3), tmp_path / "model.safetensors"
    names = {name: name for name in model.state_dict()}
    file.write_bytes(b"first")
    digests = checkpoint.weight_digests(model, names, str(tmp_path))
    assert digests == checkpoint.weight_digests(model, names)
    with torch.no_grad():
        model.weight.add_(1)
    assert checkpoint.weight_digests(model, names, str(tmp_path)) == digests
    file.write_bytes(b"second")
    assert checkpoint.weight_digests(model, names, str(tmp_path)) != digests


@pytest.mark.parametrize("change", ["a flipped bit", "a page of zeros", "a cut end", "nothing left"])
def test_a_checkpoint_with_changed_bytes_is_rejected(tmp_path, change):
    path = save(tmp_path / "best.ckpt", {"w": torch.arange(1, 9999.0)})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if change == "a flipped bit":
        data[middle] ^= 1
    elif change == "a page of zeros":
        data[middle : middle + 4096] = bytes(4096)
    else:
        del data[-99 if change == "a cut end" else 0 :]
    path.write_bytes(data)
    assert_rejected(path, r"is damaged \(.* copy it again or train again")
    assert_rejected(tmp_path / "none.ckpt", "does not exist")


def test_a_checkpoint_that_inflates_is_rejected_by_its_stated_sizes(tmp_path):
    save(tmp_path / "plain.ckpt", {"w": torch.zeros(999_999)})
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
    assert_rejected(tmp_path / "x.ckpt", r"file of 0 MB that unpacks to 4 MB; .* not loaded")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_rejected(tmp_path, value):
    path = save(tmp_path / "x.ckpt", {"w": torch.tensor([1.0, value])})
    assert_rejected(path, r"weights are not finite \(w\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "not a checkpoint of this project"),
        ([1], "not a checkpoint of this project"),
        ({"state_dict": {}, METADATA_KEY: {"format": 0}}, "has format 0"),
        ({"state_dict": {}, METADATA_KEY: CONTENT | {"config": [1]}}, "lacks config"),
        ({"state_dict": {"w": 1}, METADATA_KEY: CONTENT}, "lacks weights"),
    ],
)
def test_another_content_is_rejected(tmp_path, content, message):
    torch.save(content, tmp_path / "x.ckpt")
    assert_rejected(tmp_path / "x.ckpt", message)


def test_weights_of_another_name_shape_or_base_are_rejected():
    for saved in ({"x": torch.zeros(1)}, {"z": torch.zeros(2)}):
        content = {"state_dict": saved, METADATA_KEY: CONTENT}
        with pytest.raises(UserError, match="num_layers_to_train"):
            match_weights(content, "0" * 64, {"y": "z"}, {"y": torch.zeros(1)})
        with pytest.raises(UserError, match="expected the same base weights"):
            match_weights(content, "1" * 64, {}, {})
