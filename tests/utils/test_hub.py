"""A model comes from a folder, the hub or its cache; each failure is one line that says what to do."""

import pickle
import socket

import pytest
from huggingface_hub import constants

from src.utils import hub
from src.utils.errors import UserError
from src.utils.hub import find_source, is_hub_reachable, load_pretrained


@pytest.fixture
def online(monkeypatch):
    """Return a function that opens or closes a port and makes it the hub."""
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(hub, "getproxies", lambda: {})
    server = socket.create_server(("127.0.0.1", 0))

    def switch(on):
        if not on:
            server.close()
        is_hub_reachable.cache_clear()

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    yield switch
    server.close()
    is_hub_reachable.cache_clear()


class Kind:
    """A class with a `from_pretrained` that records its settings, or fails."""

    def __init__(self, error=None):
        self.error, self.settings = error, {}

    def from_pretrained(self, source, **settings):
        self.settings = settings
        if self.error is not None:
            raise OSError("cannot be loaded") from self.error
        return "loaded"


def test_only_a_hub_that_answers_is_asked_for_files(online, monkeypatch):
    for on in (True, False):
        online(on)
        kind = Kind()
        assert load_pretrained("model", kind, "someone/a-model", "v2") == "loaded"
        assert kind.settings["local_files_only"] is not on
        assert (kind.settings["revision"], kind.settings["trust_remote_code"]) == ("v2", False)
    monkeypatch.setattr(hub, "getproxies", lambda: {"http": "a proxy"})
    online(False)
    assert is_hub_reachable()
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    online(False)
    assert not is_hub_reachable()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (pickle.UnpicklingError("os.system"), "its weights are a pickle that holds more than tensors"),
        (ConnectionError(), r"its model cannot be loaded \(cannot be loaded\); .*set model.checkpoint=<folder>"),
    ],
)
def test_each_failure_is_one_line(error, expected):
    with pytest.raises(UserError, match=f"model.checkpoint='a/model' at revision 'v2': {expected}") as caught:
        load_pretrained("model", Kind(error), "a/model", "v2")
    assert "\n" not in str(caught.value)


def test_a_folder_is_found_and_a_path_to_nothing_is_refused(tmp_path, monkeypatch):
    (tmp_path / "captioner").mkdir()
    assert find_source("key", str(tmp_path / "captioner")) == str(tmp_path / "captioner")
    assert find_source("key", "someone/a-model") == "someone/a-model"
    with pytest.raises(UserError, match=r"key='.*captoner' does not exist; expected a folder"):
        find_source("key", str(tmp_path / "captoner"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        find_source("key", "./nothing")
    with pytest.raises(UserError, match="its config cannot be loaded"):
        load_pretrained("config", Kind(ValueError()), str(tmp_path / "captioner"))
