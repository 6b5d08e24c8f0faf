"""The three-line API: the captions are evaluation's, whatever form the pictures come in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from src.captioner import Captioner, choose_device, choose_dtype
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
    transform = captioner.preprocessing.image
    pixels = torch.stack([transform(load_image(path)) for path in paths])
    states = captioner.model.encoder(pixels).last_hidden_state
    expected = generate_captions(captioner.model, captioner.preprocessing, states, 10, 3)
    assert captioner.caption(paths, batch_size=3) == expected
    assert len(set(expected)) > 1


def test_paths_pictures_and_tensors_are_the_same(captioner, paths):
    expected = captioner.caption(paths)
    assert captioner.caption(map(str, paths)) == expected
    assert captioner.caption([Image.open(path) for path in paths]) == expected
    assert captioner.caption([load_image(path) for path in paths]) == expected
    assert captioner.caption(torch.stack([load_image(path) for path in paths])) == expected


def test_a_single_picture_gives_a_list_of_one(captioner, paths):
    expected = captioner.caption(paths)[:1]
    for image in (paths[0], str(paths[0]), Image.open(paths[0]), load_image(paths[0])):
        assert captioner.caption(image) == expected
    assert captioner.caption([]) == []


def test_alternatives_begin_with_the_caption(captioner, paths):
    for path in paths[:3]:
        found = captioner.alternatives(path)
        assert found[0].caption == captioner.caption(path)[0]
        assert 1 <= len({alternative.caption for alternative in found}) == len(found) <= 3
        assert [a.score for a in found] == sorted((a.score for a in found), reverse=True)
        assert found[0].score < 0
    greedy = Captioner(captioner.model, captioner.preprocessing, 10, num_beams=1, precision="32")
    assert [a.caption for a in greedy.alternatives(paths[0])] == greedy.caption(paths[0])


def test_attention_has_a_map_for_each_word_of_any_caption(captioner, paths):
    captions = ["a red square", "a blue circle above"]
    found = captioner.attention(paths[0], captions)
    assert [" ".join(words.words) for words in found] == captions
    assert [tuple(words.heat.shape) for words in found] == [(3, 4, 4), (4, 4, 4)]
    assert found[0].region == (0, 0, 1, 1)
    alone = captioner.attention(load_image(paths[0]), captions[1])
    assert torch.allclose(alone[0].heat, found[1].heat, atol=1e-5)
    assert not torch.allclose(captioner.attention(paths[1], captions[1])[0].heat, found[1].heat, atol=1e-3)
    assert captioner.attention(paths[0], []) == []


def test_attention_tells_what_the_encoder_saw_and_where_there_is_no_grid(captioner, paths, monkeypatch):
    cropping = replace(captioner.preprocessing.image, resize=(40, 40), crop=(32, 32))
    seen = Captioner(captioner.model, replace(captioner.preprocessing, image=cropping), precision="32")
    assert seen.attention(paths[0], "a")[0].region == pytest.approx((0.1, 0.1, 0.9, 0.9))
    monkeypatch.setattr("src.captioner.word_attention", lambda *_: None)
    assert captioner.attention(paths[0], "a red square") is None


def test_a_picture_of_pillow_is_read_as_a_file_is(captioner, tmp_path):
    """Turned by its EXIF, white behind what is transparent, at the frame that it stands at."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    picture = Image.open(tmp_path / "two.gif")
    picture.seek(1)
    assert captioner.load(picture)[:, 0, 0].tolist() == [0, 0, 255]
    assert picture.tell() == 1
    assert captioner.load(Image.new("RGBA", (4, 4), (0, 0, 0, 0))).unique().tolist() == [255]
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert captioner.load(Image.open(tmp_path / "turned.jpg")).shape == (3, 8, 4)


def test_a_run_is_asked_as_it_was_evaluated(tiny_checkpoint, paths, tmp_path):
    module = save_run(tmp_path / "run", tiny_checkpoint)
    found = Captioner.from_checkpoint(tmp_path / "run", precision="32")
    assert (found.max_length, found.num_beams) == (12, 3)
    pixels = torch.stack([found.preprocessing.image(load_image(path)) for path in paths])
    assert found.caption(paths) == module.caption(module.model.encoder(pixels).last_hidden_state)


def test_stream_goes_on_behind_a_broken_picture(captioner, paths, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(paths[0].read_bytes()[:200])
    expected = captioner.caption(paths)
    found = list(captioner.stream([broken, *paths[:3], tmp_path / "gone.jpg", *paths[3:]], batch_size=2))
    assert [caption for caption in found if isinstance(caption, str)] == expected
    assert [place for place, caption in enumerate(found) if not isinstance(caption, str)] == [0, 4]
    assert "gone.jpg" in str(found[4])


def test_stream_takes_pictures_when_it_needs_them(captioner, paths):
    taken = []
    found = captioner.stream((taken.append(path) or path for path in paths * 10), batch_size=2, num_workers=0)
    next(found)
    assert len(taken) == 2


def test_caption_raises_on_a_broken_picture(captioner, paths, tmp_path):
    with pytest.raises(UnreadableImage, match=r"gone\.jpg: no such file"):
        captioner.caption([paths[0], tmp_path / "gone.jpg"])
    (tmp_path / "cut.png").write_bytes(_png(tmp_path)[:-40])
    with pytest.raises(UnreadableImage, match="a PIL image cannot be read"):
        captioner.caption(Image.open(tmp_path / "cut.png"))


def _png(folder: Path) -> bytes:
    noise = torch.randint(256, (40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(folder / "whole.png")
    return (folder / "whole.png").read_bytes()


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (torch.zeros(3, 4, 4), r"Tensor of torch.float32 \(3, 4, 4\)"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), r"Tensor of torch.uint8 \(1, 4, 4\)"),
        (5, "a picture is a int"),
    ],
)
def test_what_is_no_picture_is_refused(captioner, image, told):
    with pytest.raises(UserError, match=told):
        captioner.caption([image])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_length": 1}, "max_length=1; expected 2 to 64"),
        ({"max_length": 65}, "max_length=65; expected 2 to 64"),
        ({"num_beams": -1}, "num_beams=-1; expected 1 or more"),
        ({"device": "abacus"}, "device='abacus' cannot be used"),
        ({"precision": "half"}, "precision='half'; expected auto, bf16, 32"),
    ],
)
def test_settings_out_of_range_are_told(tiny_checkpoint, settings, told):
    with pytest.raises(UserError, match=told):
        Captioner.from_checkpoint(tiny_checkpoint, **settings)


def test_a_batch_has_a_size(captioner, paths):
    with pytest.raises(UserError, match="batch_size=0; expected 1 or more"):
        captioner.caption(paths, batch_size=0)


def test_precision_is_what_the_hardware_has(monkeypatch, tiny_checkpoint, paths):
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("src.captioner.has_native_bf16", lambda name, native=native: native)
        assert choose_dtype("auto", cpu) == expected
    assert choose_dtype("bf16", cpu) == torch.bfloat16
    assert choose_dtype("32", cpu) == torch.float32
    captions = Captioner.from_checkpoint(tiny_checkpoint, max_length=6, precision="bf16").caption(paths[:2])
    assert len(captions) == 2
