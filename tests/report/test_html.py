"""report.html as a file: complete, closed, escaped, and written whatever is missing."""

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from src.report.html import facts, script_json, write_report
from src.report.run_files import read_run
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


def test_it_says_what_the_run_was(full):
    _, page = full
    for said in (
        "2026-03-01_12-00-00", "CIDEr-D", "2.512", "2.336 – 2.663", "0.451",
        "python train.py experiment=demo", "36d1d9289d320dca47fd6e5a0143bd460d430b14", "5.9.0", "Seed",
        "Split", "12 test pictures", "Most harmed",
        "distinct captions", "Best validation loss", "CC BY 4.0", "a purple", "5 references",
    ):  # fmt: skip
        assert said in page.text


def test_every_picture_is_inside_the_file_and_nothing_else_is_asked_for(full):
    path, page = full
    images = page.named("img")
    assert len(images) == 12
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in images)
    assert all(image["alt"] for image in images)
    source = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8"))
    assert not re.search(r"https?:|url\(|@import|//cdn", source)
    assert [link["href"] for link in page.named("link")] == ["data:,"]


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


def test_nothing_from_data_becomes_html(full):
    _, page = full
    assert HOSTILE in page.text
    assert "<b>bold</b> & co" in page.text
    assert '<u>&name">.jpg' in page.text
    assert "=HYPERLINK(1)" in page.text  # the guard against spreadsheets is taken off again
    assert "'=HYPERLINK" not in page.text
    assert not page.named("u")
    assert not [image for image in page.named("img") if "onerror" in image]
    assert len(page.named("script")) == 2


def test_json_in_a_script_element_cannot_end_it():
    value = ["</script><!--", "&", "\u2028"]
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_cross_attention_maps_are_carried_for_the_pictures_that_have_them(full):
    path, _ = full
    maps = json.loads(re.search(r'id="maps">(.*?)</script>', path.read_text(encoding="utf-8")).group(1))
    assert len(maps) == 6
    assert maps["0"]["words"][0] == "a"
    assert len(base64.b64decode(maps["0"]["heat"][0])) == maps["0"]["height"] * maps["0"]["width"] == 14 * 14


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("metrics.json", "No metrics.json: the scores are not shown."),
        ("predictions.csv", "No predictions.csv: there is no gallery."),
        ("run.json", "No run.json: command, commit and versions are not known."),
        ("attention.json", "This run folder has no attention.json"),
        ("csv/metrics.csv", "No curves: nothing was trained in this run"),
    ],
)
def test_a_missing_piece_is_told(run, missing, said):
    (run / missing).unlink()
    assert said in Page(write_report(run)).text


@pytest.mark.parametrize("damaged", ["metrics.json", "predictions.csv", "run.json", "attention.json"])
def test_a_damaged_piece_is_told(run, damaged):
    (run / damaged).write_bytes(b"\xff[1,")
    assert f"{damaged} could not be read" in Page(write_report(run)).text


def test_an_empty_folder_gives_a_report_that_says_so(tmp_path):
    text = Page(write_report(tmp_path)).text
    assert "Captions without scores" in text
    assert "No predictions were found" in text


def test_a_picture_that_is_gone_leaves_its_caption(run):
    (run / "pictures" / "0000.jpg").unlink()
    text = Page(write_report(run)).text
    assert "1 of 4 pictures could not be read" in text
    assert "picture not found" in text


def test_without_a_base_there_is_no_comparison(run):
    with (run / "predictions.csv").open(newline="") as file:
        rows = [{k: "" if "zero_shot" in k else v for k, v in row.items()} for row in csv.DictReader(file)]
    with (run / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    metrics = json.loads((run / "metrics.json").read_text())
    kept = {key: value for key, value in metrics.items() if not key.startswith("zero_shot")}
    (run / "metrics.json").write_text(json.dumps(kept))
    page = Page(write_report(run))
    assert "The base model was not asked" in page.text
    assert "not measured" in page.text
    assert not [p for p in page.named("p") if p.get("class") == "caption base"]
    assert [b["data-view"] for b in page.named("button") if "data-view" in b] == [
        "random",
        "best",
        "worst",
        "all",
    ]


@pytest.mark.parametrize(("changed", "said"), [(0, "abc123"), (2, "abc123, 2 files changed")])
def test_changes_beyond_the_commit_are_told(run, changed, said):
    loaded = read_run(run)
    loaded.about |= {"commit": "abc123", "changed_files": changed}
    assert ("Commit", said) in facts(loaded)
    assert ("Training took", "62 s") in facts(loaded)


def test_characters_that_no_file_can_hold_are_replaced(run):
    about = {"command": "python \ud800 \x00\x1b[31m", "versions": "none", "seconds": "long"}
    (run / "run.json").write_text(json.dumps(about))
    assert "python \ufffd \ufffd\ufffd[31m" in Page(write_report(run)).text


def test_the_same_run_gives_the_same_report(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_report(tmp_path / "file" / "run")
