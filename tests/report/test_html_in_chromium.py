"""The report in a real browser: views, search and attention maps work, text stays text, phones fit."""

from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from src.report.html import write_report
from tests.browser import browser, console_errors, look, sideways_scroll  # noqa: F401
from tests.report.fake_run import HOSTILE, make_run

pytestmark = [pytest.mark.chromium, pytest.mark.slow]


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


def test_it_opens_without_errors_fetches_nothing_and_keeps_text_as_text(page):
    assert console_errors(page) == []
    fetched = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert page.find_element(By.TAG_NAME, "h1").text == "Fine-tuning raised CIDEr-D from 0.451 to 2.512"
    assert HOSTILE in texts(page, ".caption.tuned")
    assert page.execute_script("return window.hacked") is None


def test_views_are_ordered_and_search_filters(page):
    assert len(shown(page)) == 15  # those with attention maps
    assert all(card.find_elements(By.CSS_SELECTOR, ".word") for card in shown(page))
    for view, descending in (("best", True), ("worst", False)):
        press(page, view)
        first = ".card:not([hidden]) .marks tbody tr:first-child td:nth-of-type(1)"
        scores = [float(text) for text in texts(page, first)]
        assert scores == sorted(scores, reverse=descending)
    press(page, "all")
    query = page.find_element(By.ID, "query")
    query.send_keys("snow ball")
    found = texts(page, ".card:not([hidden])")
    assert 0 < len(found) < 30
    assert all("snow" in text and "ball" in text for text in found)
    assert page.find_element(By.ID, "count").text == f"{len(found)} of 30 images"
    query.clear()
    query.send_keys("quiet day")  # in references alone
    assert len(shown(page)) == 30
    page.find_element(By.ID, "mapped").click()
    assert len(shown(page)) == 15


def test_a_word_shows_its_attention_map_by_mouse_click_and_keyboard(page):
    press(page, "all")
    card = next(card for card in shown(page) if card.find_elements(By.CSS_SELECTOR, ".word"))
    words, canvas = card.find_elements(By.CSS_SELECTOR, ".word"), card.find_element(By.TAG_NAME, "canvas")
    away = page.find_element(By.TAG_NAME, "h2")

    def is_on(*actions) -> bool:
        for action in actions:
            action.perform()
        return "on" in (canvas.get_attribute("class") or "").split()

    def move(element):
        return ActionChains(page).move_to_element(element)

    assert not is_on()
    assert is_on(move(words[1]))
    colours = """const data = arguments[0].getContext('2d').getImageData(0, 0, 200, 200).data;
        return new Set(new Uint32Array(data.buffer)).size"""
    assert page.execute_script(colours, canvas) > 50
    assert not is_on(move(away))
    assert is_on(move(words[2]).click(), move(away))
    assert not is_on(ActionChains(page).send_keys(Keys.ESCAPE))
    page.execute_script("arguments[0].focus()", words[0])
    assert is_on(ActionChains(page).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT))
    assert page.switch_to.active_element == words[2]


def test_the_first_images_play_their_attention_maps_until_they_are_stopped(page):
    button = page.find_element(By.ID, "play")
    words = page.find_elements(By.CSS_SELECTOR, "#hero article:first-child .word")
    assert len(page.find_elements(By.CSS_SELECTOR, "#hero canvas.on")) == 3
    assert button.text == "Play"  # less motion was asked for
    button.click()
    WebDriverWait(page, 5, 0.1).until(lambda _: "on" in words[1].get_attribute("class"))
    button.click()
    assert button.text == "Play"


@pytest.mark.parametrize("width", [320, 768, 2560])
def test_nothing_sticks_out_sideways(browser, report, width):  # noqa: F811
    look(browser, report.as_uri(), (width, 900))
    press(browser, "all")
    assert sideways_scroll(browser) == 0
