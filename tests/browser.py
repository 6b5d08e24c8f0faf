"""A headless Chromium for the tests of pages.

Take the fixture into a test file with `from tests.browser import browser  # noqa: F401`.
"""

import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--hide-scrollbars",
)  # fmt: skip
DESKTOP = (1280, 900)
PHONE = (390, 844)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """Start a Chromium that reaches nothing but this machine; skip the test without one."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver_path = shutil.which("chromedriver")
    if not chromium or not driver_path:
        pytest.skip("Chromium and chromedriver are not on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]
    for flag in [*flags, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    try:
        yield driver
    finally:
        driver.quit()


def look(browser: WebDriver, url: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
    """Open a page in a window of that many CSS pixels, light or dark."""
    browser.get_log("browser")  # of an earlier page
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    motion = {"name": "prefers-reduced-motion", "value": "reduce"}  # no scrolling to wait for
    features = [{"name": "prefers-color-scheme", "value": scheme}, motion]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(url)


def console_errors(browser: WebDriver) -> list[str]:
    """Return errors, refused resources and policy violations that were logged since `look`."""
    entries = browser.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]


def sideways_scroll(browser: WebDriver) -> int:
    """Return the CSS pixels by which the page is wider than its window."""
    return browser.execute_script("const d = document.documentElement; return d.scrollWidth - d.clientWidth")
