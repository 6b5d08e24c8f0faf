"""Rules of the PTB tokenizer: what a token can look like, found by sending millions of texts through it.

Rules are written on the shape of a text (`tokenizer.SHAPES`): é stands for any letter beyond ASCII, MARK
for a mark, ٣ for a digit, § for a symbol. At each place that rule wins whose token and what must follow it
are longest together; of equals, the first in the list. No rule repeats a repetition over the same characters,
so none is slower than the square of the text it looks at.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

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

BRACKETS = str.maketrans(
    {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-", " ": "\xa0"}
)
PARENTHESES = str.maketrans({"(": "-LRB-", ")": "-RRB-"})
NO_BREAK = str.maketrans({" ": "\xa0"})  # a token holds no plain blank
QUOTES = str.maketrans(
    dict.fromkeys("\x91‘‛‹", "`") | dict.fromkeys("\x92’›", "'")
    | dict.fromkeys("\x93“«", "``") | dict.fromkeys("\x94”»", "''")
)  # fmt: skip
SPELT = {
    "¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "¢": "cents", "£": "#", "…": "...",
    "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": "",
}  # fmt: skip


def _without_soft_hyphens(token: str) -> str:
    return token.replace("\xad", "") or "-"


def _plain_quotes(token: str) -> str:
    return token.replace("&apos;", "'").translate(QUOTES)


Normaliser = str | dict[int, str] | Callable[[str], str] | None


class Rule(NamedTuple):
    """first: a character class of what a token can begin with; pattern: group 1 is the token.

    to: what the token becomes: a text, a table for `str.translate`, a function; None: it stays.
    """

    first: re.Pattern[str]
    pattern: re.Pattern[str]
    to: Normaliser

    def normalise(self, token: str) -> str:
        """Return what COCO's scores count for the matched token."""
        if callable(self.to):
            return self.to(token)
        if isinstance(self.to, dict):
            return token.translate(self.to)
        return token if self.to is None else self.to


def _rule(first: str, token: str, then: str = "", to: Normaliser = None) -> Rule:
    return Rule(re.compile(f"[{first}]"), re.compile(f"({token})(?:{then})"), to)


CONTRACTED = (("can", "not"), ("gon", "na"), ("got", "ta"), ("wan", "na"), ("lem", "me"), ("gim", "me"))
# Words that the tokenizer cuts in two; every other run of ASCII letters before a blank is one token.
CUT_WORDS = frozenset(a + b for a, b in CONTRACTED)

_WORD_START = rf"A-Za-zé{MARK}\xad&"
_HOST_START = r"^ \t\n\"`'<>|.!?(){}$,-V\[-_X-Z"  # what a host without www. begins with, and W
_SPLIT = "(?i:{})".format("|".join(f"{a}(?={b})" for a, b in CONTRACTED))

# In the order in which equals are decided.
RULES = (
    # words, clitics and negations, entities, links, names with an apostrophe
    _rule(r" \t\xa0\u2003", f"{BLANK}+", to=""),
    _rule("<", TAG, to=NO_BREAK),
    _rule("&—", "&(?:MD|mdash|ndash);|—", to="--"),
    _rule("&", "(?i:&amp;)", to="&"),
    _rule("&", "&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);"),
    _rule(_WORD_START, f"(?>{WORD})", CLITIC, _without_soft_hyphens),
    _rule(r"A-Za-z\xad", r"[A-Za-z\xad]*?[A-MO-Za-mo-z]\xad*", NEGATION, _without_soft_hyphens),
    _rule("cgwlCGWL", _SPLIT, "(?i:not|na|ta|me)"),
    _rule("'", "'[tT]", "(?i:is|was)"),
    _rule(_WORD_START, WORD, to=_without_soft_hyphens),
    _rule("hH", URL),
    _rule(_HOST_START, HOST),
    _rule(_HOST_START, HOST + PATH),
    _rule("<&a-zA-Z0-9", EMAIL),
    _rule("@＠#", rf"[@＠][a-zA-Z_][a-zA-Z_0-9]*|#{LETTER}+"),
    _rule("A-HJ-XZn", f"[A-HJ-XZn]{ANY_QUOTE}{PLAIN_LETTER}{{2}}{PLAIN_LETTER}*"),
    _rule("'’&", CLITIC, "[^A-Za-z]", _plain_quotes),
    _rule("nN", NEGATION, "[^A-Za-z]", _plain_quotes),
    # numbers and compounds
    _rule("0-9٣", DATE),
    _rule(r"-+0-9٣.:,\xad\u066b", NUMBER, to=_without_soft_hyphens),
    _rule("0-9٣", FRACTION, to=NO_BREAK),
    _rule("½", "½", to=SPELT.__getitem__),
    _rule("A-Za-zé0-9٣", HYPHENATED),
    _rule("A-Z", INITIALS, to=lambda token: re.sub("(?i)&amp;", "&", token)),
    _rule("A-Za-z", TITLES),
    _rule("A-Za-z", ENDINGS, r"[\s\S]{2}|\Z"),
    _rule("acfnopACFNOP", NUMBERING, f"{BLANK_OR_END}?{DIGIT}"),
    _rule("peEP", r"(?i:ph|ed)\.[dD]\.", r"[\s\S]{2}|\Z"),
    _rule("A-Za-z0-9", SLASHED),
    _rule("A-Za-z0-9", DOTTED_HYPHENATED, to=_without_soft_hyphens),
    # 'em, '90s, ma'am, y'all; single letters, acronyms; words whose full stop stands before a comma
    _rule("'`’‘&", f"{APOSTROPHE}(?:[nN]{APOSTROPHE}?|[2-9]0[sS]|(?i:em|cause|till?))"),
    _rule("A-Za-zé", f"{PLAIN_LETTER}+[aeiouyAEIOUY]{ANY_QUOTE}[aeiouA-Z]{PLAIN_LETTER}*"),
    _rule("lLdDjJoOsScC", f"(?:[lLdDjJ]|[oO][lL]|(?i:somethin)){APOSTROPHE}|[cC]{APOSTROPHE}(?i:mon)"),
    _rule("'’&", f"{APOSTROPHE}[0-9]{{2}}", BLANK_OR_END),
    _rule("oO", f"[oO]{ANY_QUOTE}[oO]"),
    _rule("yY", f"[yY]{APOSTROPHE}", PLAIN_LETTER),
    _rule("A-Za-z", "[A-Za-z]", SENTENCE_START),
    _rule("A-Za-z", r"[A-Za-z](?:\.[A-Za-z])*\."),
    _rule("A-Z$", r"[A-Z]*\$"),
    _rule("€", "€", to="$"),
    _rule("¢£…", "[¢£…]", to=SPELT.__getitem__),
    _rule("Cc", r"[Cc]\+\+"),
    _rule("CFcf", "[CFcf]#"),
    _rule(_WORD_START, rf"(?:{WORD})\.", "[,;:、]", _without_soft_hyphens),
    _rule("A-Za-zé0-9٣", rf"(?:{HYPHENATED})\.", "[,;:、]", _without_soft_hyphens),
    _rule("A-Z", rf"(?:{INITIALS})\.", "[,;:、]", _without_soft_hyphens),
    _rule("A-Za-z0-9", rf"(?:{DOTTED_HYPHENATED})\.", "[,;:、]", _without_soft_hyphens),
    _rule(_WORD_START + "0-9٣", FILE, rf"{BLANK_OR_END}|[.?!,]"),
    _rule(r"(+0-9", PHONE, to=BRACKETS),
    # faces, brackets, punctuation
    _rule("<>:;=", EYES_AND_MOUTH, "[^A-Za-z0-9]", PARENTHESES),
    _rule(r"-\^x=~<>'(Oo", SIDEWAYS_FACE, to=BRACKETS),
    _rule("-", "(?i:-[LR][RCS]B-)"),
    _rule(r"()\[\]{}", r"[()\[\]{}]", to=BRACKETS),
    _rule(".", r"\.{3,5}|\.(?:[ \xa0]\.){2,}", to="..."),
    _rule("-", "--{1,3}", to="--"),
    _rule("-", "-{5,}"),
    _rule(r"!?_*#@\\", r"[!?]+|_+|\*+|#{2,}|@{2,}|(?:\\\*){1,3}"),
    _rule(r".,;:\-+/#@", r"[.,;:\-+/#@]"),
    _rule("'", "'", r"[A-Za-z][^ \t\xa0\n]", "`"),
    _rule("'", "''?"),
    _rule("'’&", CLITIC, to=_plain_quotes),
    _rule('"', '"', r"[A-Za-z0-9$]", "``"),
    _rule('"', '"', to="''"),
    _rule("`‘’“", "[`‘’“]{1,2}", to=QUOTES),
    _rule("&", "&(?:lt|gt|quot|apos|nbsp);", to=SPELT.__getitem__),
    _rule("⁺²₂", "⁺?(?:²+|₂+)"),
    _rule(r"§$%&*<=>\\^|~⁄⁺、＠", r"<<|>>|[§$%&*<=>\\^|~⁄⁺、＠]"),
)
