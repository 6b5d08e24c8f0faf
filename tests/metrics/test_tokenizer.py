"""Tokens as the Java tokenizer of pycocoevalcap gives them."""

import csv
import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.metrics.ptb_tokenizer import ptb_tokenize

# text, and the tokens that Java gave for it
EXAMPLES = list(csv.DictReader((Path(__file__).parent / "ptb_examples.csv").open(encoding="utf-8", newline="")))


def java_tokens(captions: Sequence[str]) -> list[str]:
    """Return what `pycocoevalcap` makes of these captions in one call."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    options = "-Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8"  # Java 17 asks the locale otherwise
    with mock.patch.dict(os.environ, JAVA_TOOL_OPTIONS=options):
        found = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(captions)})
    return [found[i][0] for i in range(len(captions))]


def odd_texts(count: int, seed: int) -> list[str]:
    """Return random texts of the words and signs of EXAMPLES, with and without blanks between them."""
    draw = random.Random(seed)
    words = sorted({word for example in EXAMPLES for word in example["text"].split(" ")})
    signs = sorted({sign for word in words for sign in word})
    pieces = [*words, *signs, *[" "] * len(signs)]
    return ["".join(draw.choices(pieces, k=draw.randint(1, 8))) for _ in range(count)]


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


@pytest.mark.slow
def test_real_texts_without_java(shared_data):
    captions = flickr_captions(shared_data)
    assert len(captions) == 38955
    assert fingerprint(tokens(*captions)) == FLICKR8K_TOKENS
    assert fingerprint(tokens(*medical_texts(shared_data))) == MEDICAL_TOKENS


@pytest.mark.skipif(shutil.which("java") is None, reason="the reference tokenizer needs Java")
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


def test_empty_captions_stay_in_place_and_half_a_character_is_dropped():
    assert tokens("", "a dog", " ", "...", "\x00\u200b") == ["", "a dog", "", "", ""]
    assert tokens() == []
    assert tokens("a\ud83d dog \ude00 runs") == ["a dog runs"]


@given(st.lists(st.text() | st.text(alphabet="aB1.,-'/&;<>@:!?\"()$%_ #\xad", max_size=300), max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_text_gives_one_line_of_small_letters_per_caption(captions):
    found = tokens(*captions)
    assert len(found) == len(captions)
    assert all("\n" not in line and line == line.strip(" ") and line == line.lower() for line in found)


@pytest.mark.parametrize(
    "piece", ["1,a,", "a.1-", "<a ", "a@.", "é.1.", "a%.b%.", "e.<b ", "http://", "&", "\xad", "'", "(5", "x", "a-"]
)
def test_time_is_linear(piece):
    started = time.process_time()
    tokens(piece * (10_000 // len(piece)))
    assert time.process_time() - started < 3  # about 0.2 s at worst; quadratic ones took minutes
