"""Tags, the tree and the warnings filter."""

import warnings

import pytest

from src.utils.extras import apply_extras, enforce_tags
from tests.utils.composing import composed, job


@pytest.fixture
def terminal(monkeypatch):
    """Somebody sits there and answers."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    return lambda answer: monkeypatch.setattr("builtins.input", lambda question: answer)


def test_tags_are_asked_for_at_a_terminal(tmp_path, terminal):
    terminal("baseline, flickr8k ,")
    config = composed("tags=[]")
    enforce_tags(config, tmp_path)
    assert list(config.tags) == ["baseline", "flickr8k"]
    assert (tmp_path / "tags.log").read_text() == "baseline\nflickr8k\n"


def test_tags_without_an_answer(tmp_path, terminal):
    terminal("")
    config = composed("tags=null")
    enforce_tags(config, tmp_path)
    assert list(config.tags) == ["dev"]


def test_end_of_input_is_no_answer(tmp_path, terminal, monkeypatch):
    def closed(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    config = composed("tags=[]")
    enforce_tags(config, tmp_path)
    assert list(config.tags) == ["dev"]


def test_nobody_is_asked_in_a_script_or_a_multirun(tmp_path, terminal, monkeypatch):
    def fail(question):
        raise AssertionError("asked")

    monkeypatch.setattr("builtins.input", fail)
    with job(tmp_path, "tags=[]", "hydra.mode=MULTIRUN") as config:
        enforce_tags(config, tmp_path)
    assert list(config.tags) == ["dev"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    config = composed("tags=[]")
    enforce_tags(config, tmp_path)
    assert list(config.tags) == ["dev"]


def test_tags_that_are_given_stay(tmp_path, monkeypatch):
    config = composed("tags=[a,b]")
    enforce_tags(config, tmp_path)
    assert list(config.tags) == ["a", "b"]


def test_the_tree_is_shown_and_saved(tmp_path, capsys):
    apply_extras(composed("seed=31415"), tmp_path)
    assert "31415" in capsys.readouterr().err
    tree = (tmp_path / "config_tree.log").read_text()
    assert tree.index("datamodule") < tree.index("trainer") < tree.index("31415")


def test_extras_can_be_off(tmp_path, capsys):
    off = ["extras.print_config=false", "extras.enforce_tags=false", "extras.ignore_warnings=true"]
    with warnings.catch_warnings(record=True) as caught:
        apply_extras(composed(*off), tmp_path)
        warnings.warn("hidden", stacklevel=1)
    assert caught == []
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []
    apply_extras(composed("~extras"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_rank_zero_speaks(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    apply_extras(composed(), tmp_path)
    assert capsys.readouterr().err == ""
