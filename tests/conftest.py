"""What every test may ask for."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real samples beside the checkout; the tests that need them are skipped where there are none."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real samples are not beside this checkout")
    return path
