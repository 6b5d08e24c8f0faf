"""Tokens as the Java tokenizer of pycocoevalcap gives them."""

import csv
import hashlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.metrics.ptb.tokenizer import ptb_tokenize
from tests.metrics.reference import EXAMPLES, java_tokens, needs_java, odd_texts

# sha256 of the Java tokenizer's output, one caption a line, for the captions that lie beside the checkout
FLICKR8K_TOKENS = "35f316da6f9058aa"
MEDICAL_TOKENS = "93afefb8f564df6c"


def tokens(*captions: str) -> list[str]:
    return ptb_tokenize(captions)


def fingerprint(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def flickr_captions(shared_data: Path) -> list[str]:
    with (shared_data / "flickr8k" / "captions_all.txt").open(encoding="utf-8", newline="") as file:
        return [row["caption"] for row in csv.DictReader(file)]


def medical_texts(shared_data: Path) -> list[str]:
    """Every string in the score vectors and in MedICaT's lines."""
    files = sorted((shared_data / "metric_vectors").glob("*.json"))
    values = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    for file in sorted((shared_data / "medicat").glob("*.jsonl")):
        values += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    texts: list[str] = []
    while values:
        value = values.pop(0)
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list | dict):
            values[:0] = value.values() if isinstance(value, dict) else value
    return texts


def test_gives_what_java_gave():
    for example in EXAMPLES:  # the empty line keeps what follows from deciding, as at the end of a file
        assert tokens(example["text"], "")[0] == example["tokens"]
    assert tokens(*(example["text"] for example in EXAMPLES)) == [example["tokens"] for example in EXAMPLES]


def test_real_texts_without_java(shared_data):
    captions = flickr_captions(shared_data)
    assert len(captions) == 38955
    assert fingerprint(tokens(*captions)) == FLICKR8K_TOKENS
    assert fingerprint(tokens(*medical_texts(shared_data))) == MEDICAL_TOKENS


@needs_java
@pytest.mark.slow
def test_real_and_odd_texts_equal_java(shared_data):
    texts = [*medical_texts(shared_data), *odd_texts(5000, seed=0)]
    found = zip(texts, tokens(*texts), java_tokens(texts), strict=True)
    assert [(text, ours, java) for text, ours, java in found if ours != java] == []


def test_the_next_line_decides_about_a_last_letter_as_in_java():
    assert tokens("vitamin C.", "The dog") == ["vitamin c", "the dog"]
    assert tokens("vitamin C.", "a dog") == ["vitamin c.", "a dog"]
    assert tokens("see no.", "5 dogs") == ["see no.", "5 dogs"]


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_line_breaks_inside_a_caption_are_blanks(line_break):
    assert tokens(f"a dog{line_break}runs", "a cat") == ["a dog runs", "a cat"]


def test_empty_captions_stay_in_place():
    assert tokens("", "a dog", " ", "...", "\x00\u200b") == ["", "a dog", "", "", ""]
    assert tokens() == []


def test_half_a_character_is_dropped():
    assert tokens("a\ud83d dog \ude00 runs") == ["a dog runs"]


@given(st.lists(st.text(), max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_text_gives_one_line_per_caption(captions):
    found = tokens(*captions)
    assert len(found) == len(captions)
    assert all("\n" not in line and not line.startswith(" ") and not line.endswith(" ") for line in found)


@given(st.text(alphabet="aB1.,-'/&;<>@:!?\"()$%_ #\xad", max_size=300))
@settings(max_examples=25, deadline=None)
def test_any_signs_give_tokens(caption):
    assert tokens(caption)[0].lower() == tokens(caption)[0]


PIECES = [
    "1,a,",
    "a.1-",
    "<a ",
    "a@.",
    "é.1.",
    "a%.b%.",
    "e.<b ",
    "http://",
    "&",
    "\xad",
    "'",
    "(5",
    "x",
    "a-",
]


@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear(piece):
    started = time.process_time()
    tokens(piece * (10_000 // len(piece)))
    assert time.process_time() - started < 3  # about 0.2 s at worst; quadratic ones took minutes
