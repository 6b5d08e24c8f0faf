"""Synthetic datasets: reproducible, in the layouts of Flickr8k and MedICaT, with captions that are true."""

import csv
import hashlib
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from src.datamodule.images.decode import load_image
from src.datamodule.readers.folder import read_folder
from src.demo.synthetic.datamodules import (
    SyntheticFlickrDataModule,
    SyntheticMedicalDataModule,
    write_medical,
    write_scenes,
)
from src.demo.synthetic.medical import Subfigure, draw_figure, report, sample_figure
from src.demo.synthetic.scene_drawing import draw_scene
from src.demo.synthetic.scenes import KINDS, PEOPLE, PLACES, STYLES, TABLES, Scene, Thing, describe_scene, sample_scene
from src.utils.errors import UserError

SIZE = 96


# Datasets


def test_a_dataset_is_generated_once_and_then_read(tmp_path):
    folder = tmp_path / "synthetic" / "night-10"
    for _ in range(2):
        data = SyntheticFlickrDataModule(folder, style="night", num_images=10, image_size=32)
        data.prepare_data()
        data.setup()
        assert sum(len(images) for images in data.splits.values()) == 10
        (folder / "Images" / "note").touch()  # would be gone if the folder were made again
    assert (folder / "Images" / "note").is_file()
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["night-10"]


@pytest.mark.parametrize("style", [*STYLES, "medical"])
def test_a_larger_dataset_begins_with_the_smaller_and_another_seed_differs(tmp_path, style):
    for name, count, seed in (("small", 5, 1), ("large", 9, 1), ("other", 5, 2)):
        if style == "medical":
            write_medical(tmp_path / name, count, seed, 40)
        else:
            write_scenes(tmp_path / name, count, style, seed, 40)
    for path in (path for path in (tmp_path / "small").rglob("*") if path.is_file()):
        large, other = (tmp_path / name / path.relative_to(tmp_path / "small") for name in ("large", "other"))
        if path.suffix in (".txt", ".jsonl"):
            assert large.read_bytes().startswith(path.read_bytes())
            assert not other.read_bytes().startswith(path.read_bytes())
        else:
            assert large.read_bytes() == path.read_bytes()


def test_captions_and_random_numbers_of_a_seed_never_change():
    """The shipped tiny model was trained on them, and the demo's scores depend on them."""
    texts = []
    for index in range(40):
        rng = random.Random(index)
        scene = sample_scene(rng, STYLES[index % 2])
        texts += describe_scene(scene, rng)
        draw_scene(scene, 16, rng)
        figure = sample_figure(rng)
        texts.append(report(figure, rng))
        draw_figure(figure, 16, rng)
        texts.append(str(rng.random()))
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == "d805bca592ff4dc8"


@pytest.mark.parametrize("write", [write_scenes, write_medical])
@pytest.mark.parametrize("wrong", [{"num_images": 0}, {"num_images": 1, "size": 8}])
def test_too_few_or_too_small_images_are_rejected(tmp_path, write, wrong):
    with pytest.raises(UserError, match=r"datamodule.num_images="):
        write(tmp_path, **wrong)


def test_scenes_have_the_layout_and_punctuation_of_flickr8k(tmp_path):
    write_scenes(tmp_path, 12, "night", seed=3, size=48)
    table = read_folder(tmp_path)
    assert (len(table.images), table.num_pairs, table.skipped) == (12, 60, [])
    assert all(Image.open(image.path).size == (48, 48) for image in table.images)
    with (tmp_path / "captions.txt").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "caption"]
    assert all(caption.endswith(" .") for _, caption in rows[1:])
    assert any(" , " in caption for _, caption in rows)


def test_medical_figures_have_the_layout_of_medicat_and_many_image_modes(tmp_path):
    data = SyntheticMedicalDataModule(tmp_path / "medical", num_images=80, image_size=48, drawing_seed=1)
    data.prepare_data()
    data.setup()
    images = [image for images in data.splits.values() for image in images]
    papers = [{image.group for image in images} for images in data.splits.values()]
    assert (len(images), data.table.skipped) == (80, [])
    assert not papers[0] & papers[1]
    assert not papers[0] & papers[2]
    assert set(Counter(image.group for image in images).values()) == {1, 2, 3, 4}
    assert not any(image.captions[0].startswith("Fig") for image in images)
    assert {"cc-by", "cc0"} <= {image.license for image in images}
    assert all(load_image(image.path).float().std() > 10 for image in images)
    opened = [Image.open(image.path) for image in images]
    assert {"L", "RGB", "RGBA", "LA", "P", "I;16"} == {image.mode for image in opened}
    assert any(image.width > 1.9 * image.height for image in opened)  # two subfigures


# Scenes


def pixels(*things: Thing, style: str = "plain", place: str = "field", evening: bool = False) -> np.ndarray:
    scene = Scene(style, place, things, None, evening=evening)
    return np.asarray(draw_scene(scene, SIZE, random.Random(0)), np.int32)


def fraction_of(image: np.ndarray, colour: str) -> float:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.abs(image - rgb).sum(-1) < 40).mean())


@pytest.mark.parametrize("style", STYLES)
def test_five_different_captions_state_colour_and_side(style):
    for index in range(100):
        rng = random.Random(index)
        scene = sample_scene(rng, style)
        captions = describe_scene(scene, rng)
        assert len(set(captions)) == 5
        assert not any("{" in caption or "  " in caption for caption in captions)
        if scene.things[0].kind not in ("lamp", "fire"):
            assert all(scene.things[0].colour in caption.lower() for caption in captions)
        if scene.relation in ("left", "right") and scene.place != "paper":
            first, second = scene.things
            other = "right" if scene.relation == "left" else "left"
            assert (first.x < second.x) == (scene.relation == "left")
            assert not any(f"to the {other} of" in caption for caption in captions)


@pytest.mark.parametrize("style", STYLES)
def test_colour_side_size_and_count_can_be_seen(style):
    palette = TABLES["looks"][style]["palette"]
    red, blue = (pixels(Thing("car", colour, 0.5, 0.9, 0.3), style=style) for colour in ("red", "blue"))
    assert fraction_of(red, palette["red"]) > 0.02 > fraction_of(blue, palette["red"])
    small, big = (pixels(Thing("square", "purple", 0.25, 0.8, h), style=style, place="paper") for h in (0.2, 0.4))
    assert fraction_of(small[:, SIZE // 2 :], palette["purple"]) == 0
    assert fraction_of(big, palette["purple"]) > 2 * fraction_of(small, palette["purple"]) > 0.02
    one, two = (pixels(Thing("dog", "brown", 0.5, 0.9, 0.2, count=n), style=style) for n in (1, 2))
    assert fraction_of(two, palette["brown"]) > 1.5 * fraction_of(one, palette["brown"])


def test_every_kind_is_rendered_and_every_place_differs():
    empty = pixels(place="snow")
    for kind in KINDS:
        pose = "standing" if kind in PEOPLE else ""
        thing = Thing(kind, KINDS[kind]["colours"][0], 0.5, 0.9, 0.4, pose=pose)
        assert np.abs(pixels(thing, place="snow") - empty).max() > 60, kind
    backgrounds = {pixels(place=place).tobytes() for place in PLACES}
    assert len(backgrounds) == len(PLACES)


# Medical figures


def head(finding: str, side: str, size: str = "large", marker: str = "") -> Subfigure:
    return Subfigure("head", finding, side, "parietal", "", size, "ct", marker)


@pytest.mark.parametrize(("finding", "sign"), [("bright", 1), ("dark", -1)])
def test_the_patients_left_is_on_the_right_of_the_image(finding, sign):
    left, right = (
        np.asarray(draw_figure((head(finding, side),), SIZE, random.Random(0)), np.int32)[30:66]
        for side in ("left", "right")
    )
    for columns, direction in ((slice(56, 76), sign), (slice(20, 40), -sign)):
        assert direction * (left[:, columns].mean() - right[:, columns].mean()) > 15
