"""The tokens that the COCO caption scores are made of, without Java.

pycocoevalcap cuts captions with the Penn Treebank tokenizer of Stanford CoreNLP 3.4.1, a Java program, then
drops punctuation. `ptb_tokenize` gives the same tokens. Which characters count as letters, marks, digits and symbols
was measured: every character up to U+1FFFF went through that tokenizer in 26 contexts and was grouped by what came
out (`characters.txt`, ranges of code points), so that scores do not follow the Unicode version of the running Python.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from re import compile as pattern

from src.metrics.ptb.rules import CUT_WORDS, RULES, Rule

# COCO's filter. Brackets are in its list in capitals and arrive in small letters, so `-lrb-` stays a token.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
LINE_BREAKS = str.maketrans(dict.fromkeys("\n\r\v\f\x85\u2028\u2029", " "))
PLAIN_WORD = pattern(r" *([A-Za-z]+)(?=[,;!?]?[ \n])")
LONGEST_TOKEN = 500  # characters that a rule looks ahead; keeps the time linear in the length of a text
# One character stands for its kind, so that rules can be read: é a letter, ̀  a mark, ٣ a digit, § a symbol.
LETTER, MARK, DIGIT, SYMBOL, DROPPED = "é", "\u0300", "٣", "§", "\x01"
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
THEMSELVES = "\xa0\xad¢£…⁄、＠" + "".join(ALIKE)


def _ranges(table: str, kind: str) -> list[tuple[int, int, str]]:
    """Parse `"NAME c0-d6 d8"` to [(0xc0, 0xd6, kind), (0xd8, 0xd8, kind)]."""
    ends = (item.split("-") for item in table.split()[1:])
    return [(int(first, 16), int((last or [first])[0], 16), kind) for first, *last in ends]


class ShapeTable(dict[int, str]):
    """For `str.translate`: each character to the one that stands for its kind; text keeps its length.

    `"Çà va?".translate(SHAPES)` is `"éé va?"`. Filled as characters are met.
    """

    def __init__(self) -> None:
        super().__init__((code, chr(code) if chr(code).isprintable() else DROPPED) for code in range(0x80))
        self.update({ord(char): char for char in "\t\n" + THEMSELVES})
        self.update({ord(char): kind for kind, chars in ALIKE.items() for char in chars})
        tables = Path(__file__).with_name("characters.txt").read_text(encoding="ascii").split("\n\n")
        kinds = zip(tables, (LETTER, MARK, DIGIT, SYMBOL), strict=True)
        self._ranges = sorted(item for table, kind in kinds for item in _ranges(table, kind))

    def __missing__(self, code: int) -> str:
        first, last, kind = self._ranges[max(bisect_right(self._ranges, (code, 0x110000, "")) - 1, 0)]
        self[code] = kind if first <= code <= last else DROPPED
        return self[code]


SHAPES = ShapeTable()


def ptb_tokenize(captions: Sequence[str]) -> list[str]:
    """Return the tokens of each caption in small letters, joined by blanks, as pycocoevalcap's `PTBTokenizer` does.

    `ptb_tokenize(["A man's dog (left) isn't 1.5 cm."])` is `["a man 's dog -lrb- left -rrb- is n't 1.5 cm"]`. All
    captions of a call are cut together, since what follows a line can decide about its last token, there as here:
    "type A." before a line that begins with "The " gives "type a", before others "type a.". Line breaks inside a
    caption are blanks. (There only "\\n" is; others shift all later captions.)
    """
    text = "\n".join(_clean(caption) for caption in captions)
    lines: list[list[str]] = [[] for _ in captions]
    for line, token in _tokens(text, text.translate(SHAPES)):
        if token:
            lines[line].append(token)
    return [_caption(tokens) for tokens in lines]


def _clean(caption: str) -> str:
    """Return one line; characters beyond U+FFFF as surrogate pairs, as in Java; a lone surrogate is no character."""
    caption = caption.translate(LINE_BREAKS)
    if caption.isascii() or max(caption) < "\ud800":
        return caption
    units = caption.encode("utf-16-le", "replace")
    return "".join(chr(int.from_bytes(units[i : i + 2], "little")) for i in range(0, len(units), 2))


def _caption(tokens: list[str]) -> str:
    """Tokens of one line in small letters, without punctuation."""
    if tokens:
        tokens[-1] = tokens[-1].rstrip()  # a link may end in a no-break blank; the line loses it
    text = " ".join(token for token in tokens if token not in PUNCTUATION)
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.lower()


def _tokens(text: str, shape: str) -> Iterable[tuple[int, str]]:
    """(line, token) for all of `text`; `shape` is its translation by SHAPES, of the same length."""
    position, line, end = 0, 0, len(text)
    while position < end:
        if (word := PLAIN_WORD.match(shape, position)) and word[1].lower() not in CUT_WORDS:
            yield line, word[1]
            position = word.end()
            continue
        if shape[position] == "\n":
            line += 1
            position += 1
            continue
        position, token = _next(text, shape, position)
        yield line, token


def _next(text: str, shape: str, position: int) -> tuple[int, str]:
    """Where the next token ends, and the token ("" for a blank or a character that is dropped)."""
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
