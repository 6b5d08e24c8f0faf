"""report.html as a file: complete, closed, escaped, and written whatever is missing."""

import base64
import hashlib
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.report.html import MAX_IMAGES, PER_VIEW, VIEWS, choose_images, thumbnail, write_report
from src.report.run_files import Prediction
from tests.report.fake_run import HOSTILE, make_run


class Page(HTMLParser):
    """The elements of a page, with their attributes, and its visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> tuple[Path, Page]:
    run = make_run(tmp_path_factory.mktemp("runs") / "2026-03-01_12-00-00")
    path = write_report(run)
    return path, Page(path)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", count=4)


def test_it_says_what_was_trained_and_what_came_of_it(full):
    _, page = full
    for text in (
        "2026-03-01_12-00-00", "Fine-tuning raised CIDEr-D from 0.451 to 2.512", "12 test images", "synthetic",
        "Nothing here is a medical device", "2.336 – 2.663", "Most harmed", "vit_gpt2_tiny", "0.003", "bf16-mixed",
        "SyntheticFlickr, night-1600", "100 train, 1 validation, 12 test", "last 2 blocks of encoder and decoder",
        "python train.py experiment=demo", "36d1d9289d320dca47fd6e5a0143bd460d430b14", "5.9.0", "Seed",
        "distinct captions", "Best validation loss", "CC BY 4.0", "a purple", "5 references",
    ):  # fmt: skip
        assert text in " ".join(page.text.split())
    assert not re.search(r"(grass|sea|snow|sand|it is \w+) \.", page.text)  # no blanks before punctuation


def test_every_image_is_inside_the_file_and_nothing_is_fetched(full):
    path, page = full
    images = page.named("img")
    kinds = Counter(image["src"].partition(";")[0] for image in images if image["alt"])
    assert kinds == {"data:image/jpeg": 12 + 3, "data:image/svg+xml": 2}  # the first three stand above, too; two curves
    assert len(page.named("source")) == 2  # the same for a phone
    source = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8"))
    assert not re.search(r"https?:|url\(|@import|//cdn", source)
    assert [link["href"] for link in page.named("link")] == ["data:,"]
    assert len(page.named("svg")) == 7  # an interval per metric


def test_the_policy_names_the_one_style_and_script(full):
    path, page = full
    source = path.read_text(encoding="utf-8")
    policy = next(meta["content"] for meta in page.named("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", source, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [attributes for _, attributes in page.elements if "style" in attributes]


def test_nothing_from_data_becomes_html(full):
    _, page = full
    for text in (HOSTILE, "<b>bold</b> & co", '<u>&name">.jpg', "=HYPERLINK(1)"):
        assert text in page.text
    assert not page.named("u")
    assert not [image for image in page.named("img") if "onerror" in image]
    assert len(page.named("script")) == 2


def test_attention_maps_are_carried_for_the_images_that_have_them(full):
    path, _ = full
    maps = json.loads(re.search(r'id="maps">(.*?)</script>', path.read_text(encoding="utf-8")).group(1))
    assert len(maps) == 6
    assert maps["0"]["words"][0] == "a"
    assert len(base64.b64decode(maps["0"]["heat"][0])) == maps["0"]["height"] * maps["0"]["width"] == 14 * 14


def test_missing_and_damaged_files_are_noted(run):
    names = ("metrics.json", "predictions.csv", "run.json")
    (run / "images" / "0000.jpg").unlink()
    (run / "csv" / "metrics.csv").unlink()
    (run / "attention.json").unlink()
    text = Page(write_report(run)).text
    assert "1 of 4 images could not be read" in text
    assert "image not found" in text
    assert "No curves: the run has fewer than three points" in text
    assert "This run folder has no attention.json" in text
    for name in names:
        (run / name).write_bytes(b"\xff[1,")
    text = Page(write_report(run)).text
    assert all(f"{name} could not be read" in text for name in names)
    for name in names:
        (run / name).unlink()
    text = Page(write_report(run)).text
    assert all(note in text for note in (*(f"No {name}: " for name in names), "Captions without scores"))


def test_images_that_are_gone_are_noted(run):
    shutil.rmtree(run / "images")
    assert "4 of 4 images could not be read" in Page(write_report(run)).text


def test_images_of_equal_names_keep_their_own_captions(run):
    """Identity is the image_id, not the file's base name."""
    rows = "image_id,path,caption\n"
    for folder, name in (("cats", "0001.jpg"), ("dogs", "0002.jpg")):
        (run / folder).mkdir()
        (run / "images" / name).rename(run / folder / "1.jpg")
        rows += f"{folder}/1.jpg,{folder}/1.jpg,some {folder}\n"
    (run / "predictions.csv").write_text(rows)
    page = Page(write_report(run))
    assert "cats/1.jpg" in page.text
    assert "some dogs" in page.text
    assert len({image["src"] for image in page.named("img")}) == 2 + 2  # images and curves


def test_without_a_base_there_is_no_comparison(run):
    table = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False)
    table.loc[:, [name for name in table if "zero_shot" in name]] = ""
    table.to_csv(run / "predictions.csv", index=False)
    metrics = json.loads((run / "metrics.json").read_text())
    kept = {key: value for key, value in metrics.items() if not key.startswith("zero_shot")}
    (run / "metrics.json").write_text(json.dumps(kept))
    page = Page(write_report(run))
    assert "The base model was not scored" in page.text
    assert "not measured" in page.text
    assert not [p for p in page.named("p") if p.get("class") == "caption base"]
    views = [button["data-view"] for button in page.named("button") if "data-view" in button]
    assert views == ["random", "best", "worst", "all"]


@pytest.mark.slow
def test_control_characters_are_escaped_and_equal_runs_give_equal_reports(run):
    about = {"command": "python \ud800 \x00\x1b[31m \u202egpj.exe", "versions": "none", "seconds": "long"}
    (run / "run.json").write_text(json.dumps(about))
    first = write_report(run).read_bytes()
    assert r"python \ud800 \x00\x1b[31m \u202egpj.exe" in Page(run / "report.html").text
    assert write_report(run).read_bytes() == first


def prediction(score: float | None = None, base: float | None = None) -> Prediction:
    scores = {"cider_d": score, "zero_shot_cider_d": base}
    known = {name: value for name, value in scores.items() if value is not None}
    return Prediction("a.jpg", "", "a dog", None, (), "", None, known)


def view(ranks, name) -> list[int]:
    """Return the rows of a view in order."""
    return sorted((row for row in ranks if name in ranks[row]), key=lambda row: ranks[row][name])


def test_views_are_ranked():
    scores = ((1.0, 0.5), (3.0, 0.0), (0.5, 2.0), (2.0, 2.0))
    ranks, metric = choose_images([prediction(*pair) for pair in scores])
    assert metric == "cider_d"
    assert (view(ranks, "best"), view(ranks, "worst")) == ([1, 3, 0, 2], [2, 0, 3, 1])
    assert (view(ranks, "improved"), view(ranks, "harmed")) == ([1, 0], [2])
    assert sorted(view(ranks, "random")) == [0, 1, 2, 3]


def test_a_large_set_is_bounded_and_every_view_is_complete():
    ranks, _ = choose_images([prediction(k / 100, (k * 7 % 100) / 20) for k in range(1000)])
    assert len(ranks) == MAX_IMAGES
    assert all(len(view(ranks, name)) == PER_VIEW for name in VIEWS)
    assert view(ranks, "best")[0] == 999


def test_the_random_view_does_not_depend_on_the_scores():
    scored, _ = choose_images([prediction(k / 10) for k in range(100)])
    unscored, metric = choose_images([prediction() for _ in range(100)])
    assert view(scored, "random") == view(unscored, "random")
    assert metric is None
    assert {name for row in unscored.values() for name in row} == {"random"}
    assert choose_images([]) == ({}, None)


def test_a_thumbnail_is_a_small_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    found = thumbnail(noise)
    data = base64.b64decode(found["uri"].removeprefix("data:image/jpeg;base64,"))
    assert len(data) < 80_000
    with Image.open(io.BytesIO(data)) as shown:
        assert shown.size == (found["width"], found["height"]) == (384, 288)
