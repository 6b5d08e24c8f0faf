"""The report in a real browser: views, search and word maps work, text stays text, phones fit."""

import time
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from src.report.html import write_report
from tests.browser import PHONE, browser, console_errors, look, sideways_scroll  # noqa: F401
from tests.report.fake_run import HOSTILE, make_run

pytestmark = pytest.mark.chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "run", count=30))


@pytest.fixture
def page(browser, report):  # noqa: F811
    look(browser, report.as_uri())
    return browser


def shown(page) -> list:
    return page.find_elements(By.CSS_SELECTOR, ".card:not([hidden])")


def texts(page, selector) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)"
    return page.execute_script(script, selector)


def press(page, view) -> None:
    page.find_element(By.CSS_SELECTOR, f"[data-view={view}]").click()


def overlay(card) -> bool:
    return "on" in (card.find_element(By.TAG_NAME, "canvas").get_attribute("class") or "").split()


def colours(page, card) -> int:
    """How many different colours the word map of a card has."""
    script = """const c = arguments[0].querySelector('canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(d.buffer)).size"""
    return page.execute_script(script, card)


def mapped_card(page):
    press(page, "all")
    return next(card for card in shown(page) if card.find_elements(By.CSS_SELECTOR, ".word"))


def test_it_opens_without_complaints_and_asks_for_nothing(page, report):
    page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    assert console_errors(page) == []
    asked = [e["name"] for e in page.execute_script("return performance.getEntriesByType('resource')")]
    assert [name for name in asked if not name.startswith("data:")] == []
    assert page.find_element(By.TAG_NAME, "h1").text == "CIDEr-D 0.451 → 2.512"


def test_a_caption_that_is_a_script_stays_text(page):
    press(page, "all")
    assert HOSTILE in texts(page, ".caption.tuned")
    assert page.execute_script("return window.hacked") is None


def test_views_are_ordered_by_score(page):
    assert len(shown(page)) == 24
    for view, falling in (("best", True), ("worst", False)):
        press(page, view)
        first = ".card:not([hidden]) .marks tbody tr:first-child td:nth-of-type(1)"
        scores = [float(text) for text in texts(page, first)]
        assert scores == sorted(scores, reverse=falling)
    press(page, "harmed")
    assert shown(page) == []
    assert "No picture lost by fine-tuning" in page.find_element(By.ID, "nothing").text


def test_search_finds_captions_and_references(page):
    press(page, "all")
    query = page.find_element(By.ID, "query")
    query.send_keys("snow ball")
    found = shown(page)
    assert 0 < len(found) < 30
    assert all("snow" in text and "ball" in text for text in texts(page, ".card:not([hidden])"))
    assert page.find_element(By.ID, "count").text == f"{len(found)} of 30 pictures"
    query.clear()
    query.send_keys("quiet day")  # in references alone
    assert len(shown(page)) == 30
    query.send_keys(" nowhere")
    assert shown(page) == []
    assert "No picture here matches" in page.find_element(By.ID, "nothing").text


def test_a_search_in_a_view_can_be_widened(page):
    press(page, "best")
    page.find_element(By.ID, "query").send_keys("HYPERLINK")
    widen = page.find_element(By.CSS_SELECTOR, "#nothing button")
    if widen.is_displayed():
        widen.click()
    assert len(shown(page)) == 1


def test_only_pictures_with_cross_attention_maps_and_references_can_be_shown(page):
    press(page, "all")
    page.find_element(By.ID, "mapped").click()
    assert len(shown(page)) == 15
    page.find_element(By.ID, "references").click()
    assert shown(page)[0].find_element(By.CSS_SELECTOR, ".references li").is_displayed()


def test_a_word_under_the_mouse_shows_its_map_and_a_click_keeps_it(page):
    card = mapped_card(page)
    words = card.find_elements(By.CSS_SELECTOR, ".word")
    assert not overlay(card)
    ActionChains(page).move_to_element(words[1]).perform()
    assert overlay(card)
    assert colours(page, card) > 50
    ActionChains(page).move_to_element(page.find_element(By.TAG_NAME, "h2")).perform()
    assert not overlay(card)
    words[2].click()
    ActionChains(page).move_to_element(page.find_element(By.TAG_NAME, "h2")).perform()
    assert overlay(card)
    assert words[2].get_attribute("aria-pressed") == "true"
    words[2].click()
    assert words[2].get_attribute("aria-pressed") == "false"


def test_the_keyboard_moves_between_words(page):
    card = mapped_card(page)
    words = card.find_elements(By.CSS_SELECTOR, ".word")
    assert [word.get_attribute("tabindex") for word in words[:2]] == ["0", "-1"]
    page.execute_script("arguments[0].focus()", words[0])
    ActionChains(page).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert page.switch_to.active_element == words[2]
    assert overlay(card)
    ActionChains(page).send_keys(Keys.ENTER).perform()
    assert words[2].get_attribute("aria-pressed") == "true"
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    assert not overlay(card)


def test_a_tap_on_a_phone_shows_the_map(browser, report):  # noqa: F811
    look(browser, report.as_uri(), PHONE, touch=True)
    card = mapped_card(browser)
    word = card.find_elements(By.CSS_SELECTOR, ".word")[1]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", word)
    box = word.rect
    offset = browser.execute_script("return window.scrollY")
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] - offset + box["height"] / 2}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    time.sleep(0.2)
    assert overlay(card)


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2560])
def test_nothing_sticks_out_sideways(browser, report, width):  # noqa: F811
    look(browser, report.as_uri(), (width, 900))
    press(browser, "all")
    assert sideways_scroll(browser) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_have_readable_text(browser, report, scheme):  # noqa: F811
    look(browser, report.as_uri(), scheme=scheme)
    script = """const [text, behind] =
            [...arguments].map((name) => getComputedStyle(document.querySelector(name)));
        return [text.color, behind.backgroundColor]"""
    pairs = [
        ("body", "body"), (".aside", "body"), ("nav a", "body"), (".scores th small", ".panel"),
        (".caption.tuned", ".card"), (".caption.base", ".card"), (".name", ".card"), (".gain", ".gain"),
    ]  # fmt: skip
    for pair in pairs:
        assert contrast(*browser.execute_script(script, *pair)) >= 4.5, pair


def contrast(first: str, second: str) -> float:
    """WCAG contrast of two `rgb(r, g, b)`."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_two_hundred_pictures_are_small_and_open_quickly(browser, tmp_path):  # noqa: F811
    path = write_report(make_run(tmp_path / "run", count=200, noise=True))
    assert path.stat().st_size < 15_000_000
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    look(browser, path.as_uri())
    assert browser.execute_script("return document.getElementById('count').textContent") == "24 pictures"
    told = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    # Seconds of the page's own thread: the clock on the wall also counts what else the machine does.
    assert next(metric["value"] for metric in told if metric["name"] == "TaskDuration") < 2.0
    assert console_errors(browser) == []
