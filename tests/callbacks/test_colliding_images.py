"""The same images under colliding names give the same loss from pixels and from cached features."""

import json
import subprocess
import sys

import pytest

from tests.callbacks.collisions import losses, write_images


@pytest.mark.slow
def test_colliding_names_give_equal_losses_with_and_without_cache(tiny_checkpoint, tmp_path):
    write_images(tmp_path / "images", 40)
    expected = losses(str(tiny_checkpoint), tmp_path, views=0)
    for views in (1, 4, 4):  # computed, with more views, and read from disk
        assert losses(str(tiny_checkpoint), tmp_path, views) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_200_colliding_names_give_equal_losses_on_1_and_2_processes(tiny_checkpoint, tmp_path):
    write_images(tmp_path / "images", 200)
    expected = losses(str(tiny_checkpoint), tmp_path, views=0)
    command = [sys.executable, "-m", "tests.callbacks.collisions", tiny_checkpoint, tmp_path, "4", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.strip().splitlines()[-1]) == pytest.approx(expected, abs=1e-5)
