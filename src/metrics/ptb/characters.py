"""Which characters the PTB tokenizer takes for letters, marks, digits and symbols; the rest it drops.

Measured: every character up to U+1FFFF went through the tokenizer of pycocoevalcap in 26 contexts and was
grouped by what came out: ranges of code points in `characters.txt`. They do not follow the Unicode version of
the running Python, so that scores do not either. ASCII and characters that rules name singly (quotes, dashes,
...) are not listed.
"""

from bisect import bisect_right
from pathlib import Path

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
