"""The picture of the model."""

import pytest
from PIL import Image

from src.report.diagram import main
from src.utils.errors import UserError


def test_it_is_drawn_the_same_each_time_and_is_the_one_in_the_project(tmp_path, root):
    path = main([f"out={tmp_path / 'diagram.png'}"])
    assert main([f"out={tmp_path / 'again.png'}"]) == tmp_path / "again.png"
    assert path.read_bytes() == (tmp_path / "again.png").read_bytes()
    with Image.open(path) as drawn, Image.open(root / "images" / "vit_gpt2_diagram.png") as kept:
        assert drawn.size == kept.size


def test_other_arguments_are_refused():
    with pytest.raises(UserError, match="expected at most out"):
        main(["to=here"])
