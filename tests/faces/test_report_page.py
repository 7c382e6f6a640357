"""Facts about the page on a batch, in a real browser: it sorts, filters and opens cases, and loads nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effvit_med.io.batch_report import write_batch_report
from tests.io.test_batch_report import EVIL, row

pytest.importorskip("selenium", reason="the page is tried in a browser with selenium, from the extra [dev]")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1000",
)  # fmt: skip

Driver = webdriver.Chrome


@pytest.fixture(name="browser", scope="module")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    if not (BROWSER.exists() and DRIVER.exists()):
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(name="page", scope="module")
def _page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    torn = {"code": "FRAGMENTS", "message": "liver lies in 2 separate parts."}
    against = [{"structure": "liver", "verdict": "review", "reasons": [torn]}]
    rows = [row(f"CT_{number}", seconds={"network": number}) for number in range(1, 30)]
    rows[4] = row("CT_5", "fail", seconds={"network": 5.0})
    rows[7] |= {"quality": {"verdict": "review", "structures": against, "out_of_distribution": 7.5}}
    rows += [
        {"case_id": "MR_1", "status": "refused", "code": "NO_GEOMETRY", "message": "No position.", "findings": []},
        {"case_id": EVIL, "status": "failed", "code": "CRASHED", "message": EVIL},
    ]
    for each in rows[:29]:
        (folder / each["case_id"]).mkdir()
        shade = np.full((990, 1400, 3), 80, np.uint8)
        Image.fromarray(shade).save(folder / each["case_id"] / "overlay.png")
    return write_batch_report(rows, folder)


@pytest.fixture(name="opened")
def _opened(browser: Driver, page: Path) -> Driver:
    browser.get("about:blank")
    browser.get(page.as_uri())
    return browser


def _names(browser: Driver) -> list[str]:
    """The names of the cases that are shown, from top to bottom."""
    script = "return [...document.querySelectorAll('#cases tbody tr')].filter(r => !r.hidden).map(r => r.innerText)"
    names = browser.execute_script(script.replace("r.innerText", "r.querySelector('.name').textContent"))
    return list(names)


def _head(browser: Driver, key: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, f"thead button[data-key={key}]")


def test_the_worst_are_on_top(opened: Driver) -> None:
    """The page opens with the worst verdict first."""
    assert _names(opened)[:4] == ["CT_5", EVIL, "MR_1", "CT_8"]


def test_a_click_on_a_head_sorts(opened: Driver) -> None:
    """Seconds sort down, then up; cases without a time stay last; the head says so to a screen reader."""
    _head(opened, "seconds").click()
    assert _names(opened)[:3] == ["CT_29", "CT_28", "CT_27"]
    cell = _head(opened, "seconds").find_element(By.XPATH, "./..")
    assert cell.get_attribute("aria-sort") == "descending"
    _head(opened, "seconds").click()
    assert _names(opened)[:3] == ["CT_1", "CT_2", "CT_3"]
    assert set(_names(opened)[-2:]) == {EVIL, "MR_1"}
    assert cell.get_attribute("aria-sort") == "ascending"
    assert len(opened.find_elements(By.CSS_SELECTOR, "th[aria-sort]")) == 1


def test_names_sort_as_people_count(opened: Driver) -> None:
    """CT_10 comes after CT_9."""
    _head(opened, "case").click()
    names = [name for name in _names(opened) if name.startswith("CT")]
    assert names == [f"CT_{number}" for number in range(1, 30)]


def test_a_head_can_be_used_from_the_keyboard(opened: Driver) -> None:
    """Enter on a focused head sorts as a click does."""
    _head(opened, "score").send_keys(Keys.ENTER)
    assert _names(opened)[0] == "CT_8"


def test_a_click_opens_a_case(opened: Driver) -> None:
    """The row opens beside the table with volumes, reasons and relative links; Escape closes it."""
    opened.find_element(By.CSS_SELECTOR, "#cases tbody tr:nth-child(4)").click()
    detail = opened.find_element(By.ID, "detail")
    assert detail.is_displayed()
    text = detail.text
    assert "CT_8" in text
    assert "2 separate parts" in text
    assert "1234 mL" in text or "1235 mL" in text
    links = [link.get_dom_attribute("href") for link in detail.find_elements(By.TAG_NAME, "a")]
    assert "CT_8/record.json" in links
    assert opened.execute_script("return document.querySelector('#detail img').naturalWidth") == 1400
    detail.send_keys(Keys.ESCAPE)
    assert not detail.is_displayed()


def test_arrows_go_through_the_cases(opened: Driver) -> None:
    """With a case open, down and up show the next and the one before."""
    opened.find_element(By.CSS_SELECTOR, "#cases tbody tr .name").click()
    detail = opened.find_element(By.ID, "detail")
    detail.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert detail.find_element(By.TAG_NAME, "h2").text == "MR_1"
    detail.send_keys(Keys.ARROW_UP)
    assert detail.find_element(By.TAG_NAME, "h2").text == EVIL


def test_a_state_and_words_filter(opened: Driver) -> None:
    """A state shows its cases only, words those that hold all of them, and the count says how many."""
    opened.find_element(By.CSS_SELECTOR, "button[data-state=review]").click()
    assert _names(opened) == ["CT_8"]
    opened.find_element(By.CSS_SELECTOR, "button[data-state='']").click()
    opened.find_element(By.ID, "search").send_keys("fragments liver")
    assert _names(opened) == ["CT_8"]
    assert opened.find_element(By.ID, "shown").text == "1 of 31 cases"
    opened.find_element(By.ID, "search").send_keys(" nothing")
    assert _names(opened) == []
    assert opened.find_element(By.ID, "none").is_displayed()


def test_a_case_can_be_linked(browser: Driver, page: Path) -> None:
    """The address with a case's name opens that case."""
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#CT_12")
    assert browser.find_element(By.CSS_SELECTOR, "#detail h2").text == "CT_12"


def test_text_of_a_case_never_runs(opened: Driver) -> None:
    """Markup in a message is shown, not obeyed: no picture, no script, no dialog."""
    opened.find_element(By.CSS_SELECTOR, "#cases tbody tr:nth-child(2) .name").click()
    detail = opened.find_element(By.ID, "detail")
    assert EVIL in detail.text
    assert not detail.find_elements(By.TAG_NAME, "img")
    assert len(opened.find_elements(By.TAG_NAME, "script")) == 2


def test_nothing_is_loaded_and_nothing_complains(browser: Driver, page: Path) -> None:
    """A visit with a case opened asks for the page and its own pictures only, and the console stays empty."""
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    browser.find_element(By.CSS_SELECTOR, "#cases tbody tr").click()
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert {address.partition(":")[0] for address in asked} <= {"file", "data"}


def test_the_small_pictures_show(opened: Driver) -> None:
    """Pictures near the part that is looked at are there, although they come late."""
    script = """
        const done = arguments[0];
        const img = document.querySelector('#cases img');
        if (img.naturalWidth) done(img.naturalWidth);
        else img.addEventListener('load', () => done(img.naturalWidth));
    """
    assert opened.execute_async_script(script) == 350
