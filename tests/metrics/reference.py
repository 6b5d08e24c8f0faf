"""pycocoevalcap's own tokenizer, run in Java, and texts to try tokenizers on."""

import csv
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="the reference tokenizer needs Java")

# text, and the tokens that Java gave for it
EXAMPLES = list(
    csv.DictReader((Path(__file__).parent / "ptb_examples.csv").open(encoding="utf-8", newline=""))
)


def java_tokens(captions: Sequence[str]) -> list[str]:
    """What `pycocoevalcap` makes of these captions in one call."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    options = "-Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8"  # Java 17 asks the locale otherwise
    with mock.patch.dict(os.environ, JAVA_TOOL_OPTIONS=options):
        found = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(captions)})
    return [found[i][0] for i in range(len(captions))]


def odd_texts(count: int, seed: int) -> list[str]:
    """Random texts out of the words and signs of EXAMPLES, with and without blanks between them."""
    draw = random.Random(seed)
    words = sorted({word for example in EXAMPLES for word in example["text"].split(" ")})
    signs = sorted({sign for word in words for sign in word})
    pieces = [*words, *signs, *[" "] * len(signs)]
    return ["".join(draw.choices(pieces, k=draw.randint(1, 8))) for _ in range(count)]
