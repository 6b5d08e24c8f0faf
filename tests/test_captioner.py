"""The three-line API: the captions are evaluation's, whatever form the images come in."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.captioner import Captioner
from src.datamodule.images.decode import UnreadableImage, load_image
from src.models.generation import generate_captions
from src.utils.errors import UserError
from tests.saved_run import save_run


@pytest.fixture(scope="module")
def captioner(tiny_checkpoint) -> Captioner:
    return Captioner.from_checkpoint(tiny_checkpoint, num_beams=3, max_length=10, precision="32")


@pytest.fixture(scope="module")
def paths(flickr_folder) -> list[Path]:
    return sorted((flickr_folder / "Images").iterdir())[:7]


def test_captions_are_those_of_the_model(captioner, paths):
    transform = captioner.processor.image
    pixels = torch.stack([transform(load_image(path)) for path in paths])
    states = captioner.model.encoder(pixels).last_hidden_state
    expected = generate_captions(captioner.model, captioner.processor, states, {"max_length": 10, "num_beams": 3})
    assert captioner.caption(paths, batch_size=3) == expected
    assert len(set(expected)) > 1


def test_paths_pil_images_and_tensors_give_the_same_captions(captioner, paths):
    expected = captioner.caption(paths)
    content, array = Path(paths[0]).read_bytes(), np.asarray(Image.open(paths[0]))
    for image in (
        *(kind(paths[0]) for kind in (Path, str, Image.open, load_image)),
        content,
        io.BytesIO(content),
        array,
    ):
        assert captioner.caption(image) == expected[:1]
    assert captioner.caption([]) == []
    for kind in (str, Image.open, load_image):
        assert captioner.caption(map(kind, paths)) == expected
    assert captioner.caption(torch.stack([load_image(path) for path in paths])) == expected


def test_nbest_begins_with_the_caption(captioner, paths):
    for path in paths[:3]:
        found = captioner.nbest(path)
        assert found[0].caption == captioner.caption(path)[0]
        assert 1 <= len({hypothesis.caption for hypothesis in found}) == len(found) <= 3
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert found[0].score < 0
    greedy = Captioner(captioner.model, captioner.processor, max_length=10, num_beams=1, precision="32")
    assert [one.caption for one in greedy.nbest(paths[0])] == greedy.caption(paths[0])


def test_attention_has_a_map_for_each_word_of_any_caption(captioner, paths):
    captions = ["a red square", "a blue circle above"]
    found = captioner.attention(paths[0], captions)
    assert [" ".join(words.words) for words in found] == captions
    assert [tuple(words.heat.shape) for words in found] == [(3, 4, 4), (4, 4, 4)]
    assert found[0].region == (0, 0, 1, 1)
    alone = captioner.attention(load_image(paths[0]), captions[1:])
    assert torch.allclose(alone[0].heat, found[1].heat, atol=1e-5)
    assert not torch.allclose(captioner.attention(paths[1], captions[1:])[0].heat, found[1].heat, atol=1e-3)
    assert captioner.attention(paths[0], []) == []


def test_attention_has_the_visible_crop(captioner, paths):
    cropping = replace(captioner.processor.image, resize=(40, 40), crop=(32, 32))
    cropped = Captioner(captioner.model, replace(captioner.processor, image=cropping), precision="32")
    assert cropped.attention(paths[0], ["a"])[0].region == pytest.approx((0.1, 0.1, 0.9, 0.9))


def test_a_pil_image_is_read_as_a_file_is(captioner, tmp_path):
    """Rotated by its EXIF, white behind what is transparent, at its current frame."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    image = Image.open(tmp_path / "two.gif")
    image.seek(1)
    assert captioner.load(image)[:, 0, 0].tolist() == [0, 0, 255]
    assert captioner.load(Image.new("RGBA", (4, 4), (0, 0, 0, 0))).unique().tolist() == [255]
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert captioner.load(Image.open(tmp_path / "turned.jpg")).shape == (3, 8, 4)


def test_a_run_captions_as_it_was_evaluated(tiny_checkpoint, paths, tmp_path):
    module = save_run(tmp_path / "run", tiny_checkpoint)
    found = Captioner.from_checkpoint(tmp_path / "run", precision="32")
    assert (found.generation["max_length"], found.generation["num_beams"]) == (12, 3)
    pixels = torch.stack([found.processor.image(load_image(path)) for path in paths])
    assert found.caption(paths) == module.captioner.generate(module.model.encoder(pixels).last_hidden_state)


def test_stream_continues_behind_an_unreadable_image_and_caption_raises(captioner, paths, tmp_path):
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(paths[0].read_bytes()[:200])
    images = [cut, *paths[:3], tmp_path / "gone.jpg", *paths[3:]]
    found = list(captioner.stream(images, batch_size=2))
    assert [caption for caption in found if isinstance(caption, str)] == captioner.caption(paths)
    assert [index for index, caption in enumerate(found) if not isinstance(caption, str)] == [0, 4]
    assert "gone.jpg" in str(found[4])
    with pytest.raises(UnreadableImage, match=r"gone\.jpg: no such file"):
        captioner.caption([paths[0], tmp_path / "gone.jpg"])
    Image.effect_noise((40, 40), 90).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])
    with pytest.raises(UnreadableImage, match="a PIL image cannot be read"):
        captioner.caption(Image.open(tmp_path / "cut.png"))


def test_stream_takes_images_when_it_needs_them(captioner, paths):
    assert next(captioner.stream(itertools.repeat(paths[0]), batch_size=2)) == captioner.caption(paths[0])[0]


def test_what_is_no_image_is_rejected(captioner):
    for image, message in (
        (torch.zeros(3, 4, 4), r"Tensor of torch.float32 \(3, 4, 4\)"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), r"Tensor of torch.uint8 \(1, 4, 4\)"),
        (5, "an image is a int"),
    ):
        with pytest.raises(UserError, match=message):
            captioner.caption([image])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 65}, "^max_length=65; expected a value less than or equal to 64"),
        ({"device": "abacus"}, "device='abacus'"),
        ({"precision": "half"}, "precision='half'; expected auto, bf16, 32"),
    ],
)
def test_settings_out_of_range_are_named(captioner, settings, message):
    with pytest.raises(UserError, match=message):
        Captioner(captioner.model, captioner.processor, **settings)


def test_bf16_captions_too(tiny_checkpoint, paths):
    captioner = Captioner.from_checkpoint(tiny_checkpoint, max_length=6, device="cpu", precision="bf16")
    assert captioner.dtype == torch.bfloat16
    assert len(captioner.caption(paths[:2])) == 2
