"""The tokens that the COCO caption scores are made of, without Java.

pycocoevalcap cuts captions with the Penn Treebank tokenizer of Stanford CoreNLP 3.4.1, a Java program, then
drops punctuation. `PTBTokenizer` gives the same tokens.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from re import compile as pattern

from src.metrics.ptb.characters import SHAPES
from src.metrics.ptb.rules import CUT_WORDS, Rule, rules

# COCO's filter. Brackets are in its list in capitals and arrive in small letters, so `-lrb-` stays a token.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
LINE_BREAKS = str.maketrans(dict.fromkeys("\n\r\v\f\x85\u2028\u2029", " "))
PLAIN_WORD = pattern(r" *([A-Za-z]+)(?=[,;!?]?[ \n])")
LONGEST_TOKEN = 500  # characters that a rule looks ahead; keeps the time linear in the length of a text


class PTBTokenizer:
    """Cuts captions as pycocoevalcap's `PTBTokenizer` does, all captions of one call together.

    Together, because what follows a line can decide about its last token, there as here: "type A." before a
    line that begins with "The " gives "type a", before others "type a.".

    Line breaks inside a caption are blanks. (There only "\\n" is; others shift all later captions.)
    """

    def tokenize(self, captions: Sequence[str]) -> list[str]:
        """One string per caption: its tokens in small letters, joined by blanks; empty for an empty caption.

        `PTBTokenizer().tokenize(["A man's dog (left) isn't 1.5 cm."])` is
        `["a man 's dog -lrb- left -rrb- is n't 1.5 cm"]`.
        """
        text = "\n".join(_clean(caption) for caption in captions)
        lines: list[list[str]] = [[] for _ in captions]
        for line, token in _tokens(text, text.translate(SHAPES)):
            if token:
                lines[line].append(token)
        return [_caption(tokens) for tokens in lines]


class WhitespaceTokenizer:
    """For text that is tokenized already: nothing is changed."""

    def tokenize(self, captions: Sequence[str]) -> list[str]:
        """The captions as they are.

        The reference scorers cut them at any white space, but ROUGE-L at each single blank: there two blanks
        hold an empty word between them. Published scores of such text count on it.
        """
        return list(captions)


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
    text = " ".join(token for token in tokens if token not in DROPPED)
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
def _rules() -> list[Rule]:
    return rules()


@cache
def _rules_from(first: str) -> list[Rule]:
    return [rule for rule in _rules() if rule.first.match(first)]
