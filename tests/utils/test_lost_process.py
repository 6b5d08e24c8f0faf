"""A lost process is told in a line; other errors stay what they are."""

import pytest

from src.utils.errors import UserError
from src.utils.lost_process import lost_process

GLOO = "[pair.cc:547] Connection closed by peer [127.0.0.1]:34267. This may indicate a remote failure"


@pytest.mark.parametrize(
    "text", [GLOO, "NCCL communicator: remote process exited or there was a network error"]
)
def test_what_torch_says_of_a_lost_process(text):
    error = ValueError("in a hook")
    error.__cause__ = RuntimeError(text)
    assert "another process of this run is gone" in str(lost_process(error))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(104, "Connection reset by peer")])
def test_other_errors(error):
    assert lost_process(error) is None


def test_what_is_told_already():
    error = UserError("no such file")
    error.__cause__ = RuntimeError(GLOO)
    assert lost_process(error) is None
