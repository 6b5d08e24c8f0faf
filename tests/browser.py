"""A headless Chromium for the tests that look at a page as a person does.

Take the fixture into a test file with `from tests.browser import browser  # noqa: F401`.
"""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def chromium_paths() -> tuple[str, str] | None:
    """Chromium and its driver, None where either is absent."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """A Chromium that can reach nothing but this machine; the tests that need it are skipped without one."""
    paths = chromium_paths()
    if paths is None:
        pytest.skip("Chromium and chromedriver are not on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    flags = [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]
    for flag in [*flags, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    try:
        yield driver
    finally:
        driver.quit()


def look(
    browser: WebDriver, url: str, size: tuple[int, int] = DESKTOP, scheme: str = "light", touch: bool = False
) -> None:
    """Open a page in a window of that many CSS pixels, light or dark, with fingers or a mouse."""
    browser.get_log("browser")  # what an earlier page said
    browser.get_log("performance")
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": touch}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
    wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # no scrolling to wait for
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(url)


def console_errors(browser: WebDriver) -> list[str]:
    """What the page complained of since `look`: errors, refused resources, broken rules of its policy."""
    return [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


def sideways_scroll(browser: WebDriver) -> int:
    """CSS pixels by which the page is wider than its window."""
    return browser.execute_script("const d = document.documentElement; return d.scrollWidth - d.clientWidth")


def screenshot(browser: WebDriver, path: Path, whole: bool = False) -> Path:
    """Write what the window shows, or the whole page, as PNG."""
    answer: dict[str, Any] = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": whole}
    )
    path.write_bytes(base64.b64decode(answer["data"]))
    return path
