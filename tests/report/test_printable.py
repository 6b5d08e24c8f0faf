"""Text that can be shown."""

from src.report.printable import printable


def test_control_characters_and_lone_surrogates_are_replaced():
    assert printable("a\x00b\x1b[0m\x85\ud83d") == "a\ufffdb\ufffd[0m\ufffd\ufffd"


def test_all_else_stays():
    text = "tab\tline\nemoji 🐕 עברית ‏ naïve"
    assert printable(text) == text
