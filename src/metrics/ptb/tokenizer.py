"""The tokens of COCO's caption scores without Java: Stanford CoreNLP 3.4.1's Penn Treebank tokenizer.

characters.txt has what it takes for letters, marks, digits and symbols: ranges of code points, measured by sending
each character up to U+1FFFF through pycocoevalcap's Java program. They follow no Unicode version of Python.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from src.metrics.ptb.rules import CUT_WORDS, RULES, Rule

# COCO's filter. Brackets are in its list in capitals and arrive in small letters, so `-lrb-` stays a token.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
LINE_BREAKS = str.maketrans(dict.fromkeys("\n\r\v\f\x85\u2028\u2029", " "))
PLAIN_WORD = re.compile(r" *([A-Za-z]+)(?=[,;!?]?[ \n])")
LONGEST_TOKEN = 500  # characters that a rule looks ahead; keeps the time linear in the length of a text

KINDS = ("é", "\u0300", "٣", "§")  # letter, mark, digit, symbol, as `rules` writes them; \x01: dropped
ALIKE = {
    "\u2003": "\u2000\u2001\u2002\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u3000",  # blanks
    "\u2010": "\u058a\u2011",  # hyphens
    "—": "\x96\x97–―",
    "²": "¹³⁰⁴⁵⁶⁷⁸⁹",
    "₂": "₀₁₃₄₅₆₇₈₉",
    "⁺": "⁻₊₋",
    "€": "\x80¤₠",
    "½": "¼¾⅓⅔",
    "’": "\x92",
    "‘": "\x91‛",
    "“": "\x93\x94”„‟‚‹›«»",
    "\u066b": "\u066c",
}


def ptb_tokenize(captions: Sequence[str]) -> list[str]:
    """Return each caption's tokens in small letters, joined by blanks, as pycocoevalcap's `PTBTokenizer` does.

    "A man's (big) dog." gives "a man 's -lrb- big -rrb- dog". All captions of a call together, because there as
    here the next line can decide about a line's last token: "type A." before "The dog" gives "type a", before others
    "type a.". Line breaks in a caption are blanks.
    """
    text = "\n".join(_clean(caption) for caption in captions)
    lines: list[list[str]] = [[] for _ in captions]
    for line, token in _tokens(text, text.translate(SHAPES)):
        if token:
            lines[line].append(token)
    return [_join(tokens) for tokens in lines]


class _ShapeTable(dict[int, str]):
    """For `str.translate`: each character to the one that stands for its kind, filled as characters are met."""

    def __init__(self) -> None:
        super().__init__((code, chr(code) if chr(code).isprintable() else "\x01") for code in range(0x80))
        self.update({ord(char): char for char in "\t\n\xa0\xad¢£…⁄、＠" + "".join(ALIKE)})
        self.update({ord(char): kind for kind, chars in ALIKE.items() for char in chars})
        tables = Path(__file__).with_name("characters.txt").read_text(encoding="ascii").split("\n\n")
        self._ranges: list[tuple[int, int, str]] = []  # (first, last, kind) of "NAME c0-d6 d8"
        for table, kind in zip(tables, KINDS, strict=True):
            ends = [[int(end, 16) for end in item.split("-")] for item in table.split()[1:]]
            self._ranges += [(codes[0], codes[-1], kind) for codes in ends]
        self._ranges.sort()

    def __missing__(self, code: int) -> str:
        first, last, kind = self._ranges[max(bisect_right(self._ranges, (code, 0x110000, "")) - 1, 0)]
        self[code] = kind if first <= code <= last else "\x01"
        return self[code]


SHAPES = _ShapeTable()


def _clean(caption: str) -> str:
    """Return one line, with surrogate pairs beyond U+FFFF as in Java; a lone surrogate is no character."""
    caption = caption.translate(LINE_BREAKS)
    if caption.isascii() or max(caption) < "\ud800":
        return caption
    units = caption.encode("utf-16-le", "replace")
    return "".join(chr(int.from_bytes(units[i : i + 2], "little")) for i in range(0, len(units), 2))


def _join(tokens: list[str]) -> str:
    if tokens:
        tokens[-1] = tokens[-1].rstrip()  # a link may end in a no-break blank; the line loses it
    text = " ".join(token for token in tokens if token not in DROPPED)
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.lower()


def _tokens(text: str, shape: str) -> Iterator[tuple[int, str]]:
    """Yield (line, token); "" for a blank or a dropped character. `shape` is the text translated by SHAPES."""
    position, line, end = 0, 0, len(text)
    while position < end:
        if (word := PLAIN_WORD.match(shape, position)) and word[1].lower() not in CUT_WORDS:
            yield line, word[1]
            position = word.end()
        elif shape[position] == "\n":
            line += 1
            position += 1
        else:
            position, token = _next_token(text, shape, position)
            yield line, token


def _next_token(text: str, shape: str, position: int) -> tuple[int, str]:
    """Return where the next token ends, and the token."""
    longest, best, limit = position, None, position + LONGEST_TOKEN
    for rule in _rules_from(shape[position]):
        match = rule.pattern.match(shape, position, limit)
        if match and match.end() > longest:
            longest, best, token_end = match.end(), rule, match.end(1)
    if best is None:
        return position + 1, ""
    return token_end, best.normalise(text[position:token_end])


@cache
def _rules_from(first: str) -> list[Rule]:
    return [rule for rule in RULES if rule.first.match(first)]
