"""The tokens of COCO's caption scores without Java: Stanford CoreNLP 3.4.1's Penn Treebank tokenizer.

ptb_characters.txt has what it takes for letters, marks, digits and symbols: ranges of code points, measured by sending
each character up to U+1FFFF through pycocoevalcap's Java program. They follow no Unicode version of Python. The rules
were found by sending millions of texts through it.

Rules are written on the shape of a text (SHAPES): é stands for any letter beyond ASCII, MARK for a mark, ٣ for a digit,
§ for a symbol. At each place that rule wins whose token and what must follow it are longest together; of equals, the
first in RULES. No rule repeats a repetition over the same characters, so none is slower than the square of its text.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from operator import methodcaller
from pathlib import Path

MARK = "\u0300"
LETTER = rf"(?:[A-Za-zé{MARK}\xad]|&[aeiouAEIOU](?:acute|grave|uml);)"
LETTERS_OR_DIGITS = rf"(?:[A-Za-zé{MARK}\xad0-9٣]++|&[aeiouAEIOU](?:acute|grave|uml);)"  # to be repeated
PLAIN_LETTER = "[A-Za-zé]"
PLAIN = "[A-Za-zé0-9٣]"
DIGIT = "[0-9٣]"
BLANK = "[ \t\xa0\u2003]"
BLANK_OR_END = "[ \t\xa0\u2003\n]"
APOSTROPHE = "(?:['’]|&apos;)"
ANY_QUOTE = "(?:['`’‘]|&apos;)"  # in contractions and names the tokenizer takes every single quote

WORD = f"{LETTER}{LETTERS_OR_DIGITS}*+(?:[.!?]{LETTER}{LETTERS_OR_DIGITS}*+)*"
CLITIC = f"{APOSTROPHE}(?i:[msd]|re|ve|ll)"
NEGATION = f"[nN]{ANY_QUOTE}[tT]"
D_PREFIX = f"(?:[dDoOlL]{ANY_QUOTE}{PLAIN})?"  # d'Arcy, O'Neil, l'eau
HYPHENATED = f"{D_PREFIX}{PLAIN}+(?:[-_\u2010]{D_PREFIX}{PLAIN}+)*"
INITIALS = "[A-Z]+(?:(?:(?i:&amp;)|[+&])[A-Z]+)+"  # AT&T
SLASH_PART = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
SLASHED = rf"{SLASH_PART}(?:\\?/{SLASH_PART}){{1,2}}"  # and/or, mg/dL
DOTTED_HYPHENATED = r"[A-Za-z0-9][A-Za-z0-9.,\xad]*+(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]+))+"
NUMBER = rf"[-+]?(?:{DIGIT}*(?:[.:,\xad\u066b]{DIGIT}+)+|{DIGIT}+)"
FRACTION = rf"(?:{DIGIT}{{1,4}}[- \xa0])?{DIGIT}{{1,4}}(?:\\?/|⁄){DIGIT}{{1,4}}"
DATE = f"{DIGIT}{{1,2}}[-/]{DIGIT}{{1,2}}[-/]{DIGIT}{{2,4}}"
PHONE = (
    r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"
    r"[0-9]{3,4}[- \xa0]?[0-9]{3,5}"
    r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
URL = r'(?i:https?)://[^ \t\n"<>|(){}]+[^ \t\n"<>|.!?(){},-]'
HOST = (
    r'(?:(?i:www)\.(?:[^ \t\n"<>|.!?(){},]++\.)+[a-zA-Z]{2,4}'
    r"""|(?:[^ \t\n"`'<>|.!?(){}$,-_]++\.)+(?i:com|net|org|edu))"""  # `,-_` is a range there as well
)
PATH = r'/[^ \t\n"<>|()]+[^ \t\n"<>|.!?(){},-]'
EMAIL = (
    r'(?:&lt;|<)?[a-zA-Z0-9][^ \t\n"<>|(){}\xa0]*@'
    r'(?:[^ \t\n"<>|(){}.\xa0]++\.)*[^ \t\n"<>|(){}.\xa0]+(?:&gt;|>)?'
)
TAG_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
TAG = (
    rf"<(?:[!?][A-Za-z-][^>\n]*|/{TAG_NAME} *"
    rf"""|{TAG_NAME}(?: +{TAG_NAME}(?: *= *(?:'[^\n']*'|"[^\n"]*"))?)* */? *)>"""
)
FILE = (
    rf"{LETTERS_OR_DIGITS}++(?:\.{LETTERS_OR_DIGITS}++)*\.(?i:bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar"
    r"|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip)"
)

# Abbreviations keep their full stop. TITLES: in any place.
TITLES = (
    "(?:(?i:adj|adm|adv|alex|assoc|asst|attys?|ave|brig|capt|cf|cie|cmdr|col|comdr|cpl|dept|det|drs?|elec|ens|ft|gen"
    "|govs?|hon|insp|invt|jos|lieut|lt|maj|messrs|mlle|mme|mrs?|ms|msgr|mt|natl|pfc|ph|pres|profs?|pvt|reps?|rev"
    r"|sens?|sfc|sgt|spc|ste?|supts?|treas|vs|wm)|[Mm]f[Gg]|[Mm]t[Gg])\."
)
# May end a sentence too: matched with the two characters after them.
ENDINGS = (
    "(?:(?i:ala?|apr|ariz|assn|aug|bhd|bldg|blvd|bros|calif|co|colo|conn|corp|cos|ct|dak|dec|esq|est|etc|ext|feb|fla"
    "|fri|ga|inc|ind|intl|jan|jr|jul|jun|kans?|ky|ltd|mar|md|mich|minn|mo|mon|mont|neb|nev|nov|oct|okla|penn|plc|rd|rt"
    "|sept?|seq|sq|sr|sys|tel|tenn|thu|thurs|tues?|univ|va|vt|wed|wisc?|wyo)"
    "|A(?i:rk|z)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash)"
    r"|[Pp]?[Pp][Tt](?:e|y)|[Pp]?[Pp][Tt](?:es|ys|eS|yS))\."
)
# Only before a number.
NUMBERING = r"(?i:art|ca|figs?|nos?|op|pp|prop)\."
STARTERS = (
    "A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Mr\\.|Ms\\."
    "|Now|Once|One|Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet"
    "|You"
)
SENTENCE_START = rf"\.{BLANK_OR_END}+(?:(?:{STARTERS}|{STARTERS.upper()}|{TAG}){BLANK_OR_END})"
EYES_AND_MOUTH = r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]"
SIDEWAYS_FACE = r"[-\^x=~<>']_[-\^x=~<>']|\([-\^x=~<>'][_.]?[-\^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)|O_o|o_O"

# What a token becomes
QUOTES = dict(zip("\x91‘‛‹\x92’›", "````'''", strict=True))
QUOTES |= dict.fromkeys("\x93“«", "``") | dict.fromkeys("\x94”»", "''")
ESCAPES = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
NO_BREAK = {" ": "\xa0"}  # a token holds no plain blank
SPELT = {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "¢": "cents", "£": "#", "…": "..."}
SPELT |= {"&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": ""}

spell: Callable[[str], str] = SPELT.__getitem__
join_blanks = methodcaller("translate", str.maketrans(NO_BREAK))
escape_brackets = methodcaller("translate", str.maketrans(ESCAPES | NO_BREAK))
escape_parentheses = methodcaller("translate", str.maketrans({"(": "-LRB-", ")": "-RRB-"}))


def straighten_quotes(token: str) -> str:
    return "".join(QUOTES.get(char, char) for char in token.replace("&apos;", "'"))


def drop_soft_hyphens(token: str) -> str:
    return token.replace("\xad", "") or "-"


class Rule:
    """A kind of token: the characters it begins with, its pattern, what must follow it, what it becomes."""

    def __init__(self, first: str, token: str, then: str = "", to: Callable[[str], str] = str) -> None:
        self.first, self.pattern, self.to = re.compile(f"[{first}]"), re.compile(f"({token})(?:{then})"), to


CONTRACTED = (("can", "not"), ("gon", "na"), ("got", "ta"), ("wan", "na"), ("lem", "me"), ("gim", "me"))
# Words that the tokenizer cuts in two; every other run of ASCII letters before a blank is one token.
CUT_WORDS = frozenset(a + b for a, b in CONTRACTED)

WORD_START = rf"A-Za-zé{MARK}\xad&"
HOST_START = r"^ \t\n\"`'<>|.!?(){}$,-V\[-_X-Z"  # what a host without www. begins with, and W
SPLIT = "(?i:{})".format("|".join(f"{a}(?={b})" for a, b in CONTRACTED))

# In the order in which equals are decided.
RULES = (
    # words, clitics and negations, entities, links, names with an apostrophe
    Rule(r" \t\xa0\u2003", f"{BLANK}+", to=lambda _: ""),
    Rule("<", TAG, to=join_blanks),
    Rule("&—", "&(?:MD|mdash|ndash);|—", to=lambda _: "--"),
    Rule("&", "(?i:&amp;)", to=lambda _: "&"),
    Rule("&", "&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);"),
    Rule(WORD_START, f"(?>{WORD})", CLITIC, drop_soft_hyphens),
    Rule(r"A-Za-z\xad", r"[A-Za-z\xad]*?[A-MO-Za-mo-z]\xad*", NEGATION, drop_soft_hyphens),
    Rule("cgwlCGWL", SPLIT, "(?i:not|na|ta|me)"),
    Rule("'", "'[tT]", "(?i:is|was)"),
    Rule(WORD_START, WORD, to=drop_soft_hyphens),
    Rule("hH", URL),
    Rule(HOST_START, HOST),
    Rule(HOST_START, HOST + PATH),
    Rule("<&a-zA-Z0-9", EMAIL),
    Rule("@＠#", rf"[@＠][a-zA-Z_][a-zA-Z_0-9]*|#{LETTER}+"),
    Rule("A-HJ-XZn", f"[A-HJ-XZn]{ANY_QUOTE}{PLAIN_LETTER}{{2}}{PLAIN_LETTER}*"),
    Rule("'’&", CLITIC, "[^A-Za-z]", straighten_quotes),
    Rule("nN", NEGATION, "[^A-Za-z]", straighten_quotes),
    # numbers and compounds
    Rule("0-9٣", DATE),
    Rule(r"-+0-9٣.:,\xad\u066b", NUMBER, to=drop_soft_hyphens),
    Rule("0-9٣", FRACTION, to=join_blanks),
    Rule("½", "½", to=spell),
    Rule("A-Za-zé0-9٣", HYPHENATED),
    Rule("A-Z", INITIALS, to=lambda token: re.sub("(?i)&amp;", "&", token)),
    Rule("A-Za-z", TITLES),
    Rule("A-Za-z", ENDINGS, r"[\s\S]{2}|\Z"),
    Rule("acfnopACFNOP", NUMBERING, f"{BLANK_OR_END}?{DIGIT}"),
    Rule("peEP", r"(?i:ph|ed)\.[dD]\.", r"[\s\S]{2}|\Z"),
    Rule("A-Za-z0-9", SLASHED),
    Rule("A-Za-z0-9", DOTTED_HYPHENATED, to=drop_soft_hyphens),
    # 'em, '90s, ma'am, y'all; single letters, acronyms; words whose full stop stands before a comma
    Rule("'`’‘&", f"{APOSTROPHE}(?:[nN]{APOSTROPHE}?|[2-9]0[sS]|(?i:em|cause|till?))"),
    Rule("A-Za-zé", f"{PLAIN_LETTER}+[aeiouyAEIOUY]{ANY_QUOTE}[aeiouA-Z]{PLAIN_LETTER}*"),
    Rule("lLdDjJoOsScC", f"(?:[lLdDjJ]|[oO][lL]|(?i:somethin)){APOSTROPHE}|[cC]{APOSTROPHE}(?i:mon)"),
    Rule("'’&", f"{APOSTROPHE}[0-9]{{2}}", BLANK_OR_END),
    Rule("oO", f"[oO]{ANY_QUOTE}[oO]"),
    Rule("yY", f"[yY]{APOSTROPHE}", PLAIN_LETTER),
    Rule("A-Za-z", "[A-Za-z]", SENTENCE_START),
    Rule("A-Za-z", r"[A-Za-z](?:\.[A-Za-z])*\."),
    Rule("A-Z$", r"[A-Z]*\$"),
    Rule("€", "€", to=lambda _: "$"),
    Rule("¢£…", "[¢£…]", to=spell),
    Rule("Cc", r"[Cc]\+\+"),
    Rule("CFcf", "[CFcf]#"),
    Rule(WORD_START, rf"(?:{WORD})\.", "[,;:、]", drop_soft_hyphens),
    Rule("A-Za-zé0-9٣", rf"(?:{HYPHENATED})\.", "[,;:、]", drop_soft_hyphens),
    Rule("A-Z", rf"(?:{INITIALS})\.", "[,;:、]", drop_soft_hyphens),
    Rule("A-Za-z0-9", rf"(?:{DOTTED_HYPHENATED})\.", "[,;:、]", drop_soft_hyphens),
    Rule(WORD_START + "0-9٣", FILE, rf"{BLANK_OR_END}|[.?!,]"),
    Rule(r"(+0-9", PHONE, to=escape_brackets),
    # faces, brackets, punctuation
    Rule("<>:;=", EYES_AND_MOUTH, "[^A-Za-z0-9]", escape_parentheses),
    Rule(r"-\^x=~<>'(Oo", SIDEWAYS_FACE, to=escape_brackets),
    Rule("-", "(?i:-[LR][RCS]B-)"),
    Rule(r"()\[\]{}", r"[()\[\]{}]", to=escape_brackets),
    Rule(".", r"\.{3,5}|\.(?:[ \xa0]\.){2,}", to=lambda _: "..."),
    Rule("-", "--{1,3}", to=lambda _: "--"),
    Rule("-", "-{5,}"),
    Rule(r"!?_*#@\\", r"[!?]+|_+|\*+|#{2,}|@{2,}|(?:\\\*){1,3}"),
    Rule(r".,;:\-+/#@", r"[.,;:\-+/#@]"),
    Rule("'", "'", r"[A-Za-z][^ \t\xa0\n]", lambda _: "`"),
    Rule("'", "''?"),
    Rule("'’&", CLITIC, to=straighten_quotes),
    Rule('"', '"', r"[A-Za-z0-9$]", lambda _: "``"),
    Rule('"', '"', to=lambda _: "''"),
    Rule("`‘’“", "[`‘’“]{1,2}", to=straighten_quotes),
    Rule("&", "&(?:lt|gt|quot|apos|nbsp);", to=spell),
    Rule("⁺²₂", "⁺?(?:²+|₂+)"),
    Rule(r"§$%&*<=>\\^|~⁄⁺、＠", r"<<|>>|[§$%&*<=>\\^|~⁄⁺、＠]"),
)

# COCO's filter. Brackets are in its list in capitals and arrive in small letters, so `-lrb-` stays a token.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
LINE_BREAKS = str.maketrans(dict.fromkeys("\n\r\v\f\x85\u2028\u2029", " "))
PLAIN_WORD = re.compile(r" *([A-Za-z]+)(?=[,;!?]?[ \n])")
LONGEST_TOKEN = 500  # characters that a rule looks ahead; keeps the time linear in the length of a text

KINDS = ("é", "\u0300", "٣", "§")  # letter, mark, digit, symbol
ALIKE = {
    "\u2003": "\u2000\u2001\u2002\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u3000",  # blanks
    "\u2010": "\u058a\u2011",  # hyphens
}
ALIKE |= {"—": "\x96\x97–―", "²": "¹³⁰⁴⁵⁶⁷⁸⁹", "₂": "₀₁₃₄₅₆₇₈₉", "⁺": "⁻₊₋", "€": "\x80¤₠", "½": "¼¾⅓⅔"}
ALIKE |= {"’": "\x92", "‘": "\x91‛", "“": "\x93\x94”„‟‚‹›«»", "\u066b": "\u066c"}


def _shape_table() -> defaultdict[int, str]:
    """For `str.translate`: each character to the one that stands for its kind, or to \\x01, which is dropped."""
    shapes: defaultdict[int, str] = defaultdict(lambda: "\x01")
    tables = Path(__file__).with_name("ptb_characters.txt").read_text(encoding="ascii").split("\n\n")
    for table, kind in zip(tables, KINDS, strict=True):
        for item in table.split()[1:]:  # "c0-d6" or "d8"
            first, _, last = item.partition("-")
            shapes |= dict.fromkeys(range(int(first, 16), int(last or first, 16) + 1), kind)
    shapes |= {code: chr(code) if chr(code).isprintable() else "\x01" for code in range(0x80)}
    shapes |= {ord(char): char for char in "\t\n\xa0\xad¢£…⁄、＠" + "".join(ALIKE)}
    return shapes | {ord(char): kind for kind, chars in ALIKE.items() for char in chars}


SHAPES = _shape_table()


def ptb_tokenize(captions: Sequence[str]) -> list[str]:
    """Return each caption's tokens in small letters, joined by blanks, as pycocoevalcap's `PTBTokenizer` does.

    "A man's (big) dog." gives "a man 's -lrb- big -rrb- dog". All captions of a call together, because there as
    here the next line can decide about a line's last token: "type A." before "The dog" gives "type a", before others
    "type a.". Line breaks in a caption are blanks.
    """
    text = "\n".join(_clean(caption) for caption in captions)
    shape, lines, line, position = text.translate(SHAPES), [list[str]() for _ in captions], 0, 0
    while position < len(text):
        if (word := PLAIN_WORD.match(shape, position)) and word[1].lower() not in CUT_WORDS:
            lines[line].append(word[1])
            position = word.end()
        elif shape[position] == "\n":
            line, position = line + 1, position + 1
        else:
            token, position = _next_token(text, shape, position)
            lines[line] += [token] if token else []
    return [_join(tokens) for tokens in lines]


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


def _next_token(text: str, shape: str, position: int) -> tuple[str, int]:
    """Return the next token, "" for a blank or a dropped character, and where it ends."""
    longest, best = position, ("", position + 1)
    for rule in _rules_from(shape[position]):
        match = rule.pattern.match(shape, position, position + LONGEST_TOKEN)
        if match and match.end() > longest:
            longest, best = match.end(), (rule.to(text[position : match.end(1)]), match.end(1))
    return best


@cache
def _rules_from(first: str) -> list[Rule]:
    return [rule for rule in RULES if rule.first.match(first)]
