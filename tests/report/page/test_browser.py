"""The page in a real browser: it renders, answers to mouse and keyboard, reads well in light, dark and on a phone."""

import importlib.util
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import letter_task, pair

from lifealign.config import LifeConfig
from lifealign.config_file import build_config
from lifealign.data.task import Task
from lifealign.evaluation.adherence import AnswerCheck
from lifealign.life import Life
from lifealign.report.page.life_page import life_page
from lifealign.report.page.runs_page import load_run, runs_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium found; Debian: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]
EVIL = "<script>document.title='owned';alert(1)</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def pages(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of the page of a life with two tasks, one of them malicious, and of one with two runs."""
    folder = tmp_path_factory.mktemp("pages")
    small = {"num_train_epochs": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    lives = []
    for method in ("lifealign", "er"):
        config = build_config(
            LifeConfig,
            {
                "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
                "lora": {"lora_r": 4, "lora_alpha": 8},
                "sft": small,
                "preference": small,
                "evaluation": {"max_new_tokens": 4},
                "method": method,
            },
        )
        life = Life.create(folder / method, config)
        rows = tuple(pair(f"{EVIL} {number}", "yes", "no") for number in range(4))
        life.learn(Task("greet", rows, rows, AnswerCheck(max_words=3)))
        life.learn(letter_task("a-task-with-a-long-name", "c", "d"))
        life.learn(letter_task("third", "e", "f"))
        lives.append(life)
    (folder / "life.html").write_text(life_page(lives[0]))
    (folder / "runs.html").write_text(runs_page([load_run(life.directory.path) for life in lives], "ER"))
    return {name: (folder / f"{name}.html").as_uri() for name in ("life", "runs")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any, pages: dict[str, str]) -> Iterator[Any]:
    """Opens a page; at the end nothing may have gone to the console, and nothing to the network."""
    said: list[str] = []
    contexts = []

    def go(name: str, **settings: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1100, "height": 800}} | settings))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: None if request.url == pages[name] else said.append(request.url))
        page.goto(pages[name])
        return page

    yield go
    for context in contexts:
        context.close()
    assert [text for text in said if not text.startswith("data:")] == []


@pytest.mark.parametrize("name", ["life", "runs"])
def test_it_renders_and_nothing_that_came_in_with_an_answer_runs(visit: Any, name: str) -> None:
    page = visit(name)
    assert page.title() == {"life": "lifealign: report", "runs": "Runs side by side"}[name]
    assert page.locator("h1").inner_text() in ("lifealign", "Runs side by side")
    assert (
        page.evaluate("[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().height > 0).length")
        > 0
    )
    if name == "life":
        assert "<script>document.title" in page.inner_text("#answers")


def test_numbers_show_on_hover_and_on_focus_and_go_away(visit: Any) -> None:
    page = visit("life")
    cell = page.locator("table.heat td[data-tip]:visible").first
    cell.hover()
    assert page.locator("#tip").is_visible() and page.locator("#tip").inner_text() == cell.get_attribute("data-tip")
    page.mouse.move(1, 1)
    assert page.locator("#tip").is_hidden()
    cell.focus()
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_metrics_are_chosen_by_keyboard_and_everywhere_at_once(visit: Any) -> None:
    page = visit("life")
    tabs = page.locator("#scores [role=tab]")
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    assert tabs.nth(1).get_attribute("aria-selected") == "true" and tabs.nth(1).evaluate(
        "e => e === document.activeElement"
    )
    chosen = tabs.nth(1).get_attribute("data-metric")
    for group in ("scores", "time", "transfer"):
        assert page.locator(f"#{group}-{chosen}").is_visible()
        first = tabs.first.get_attribute("data-metric")
        assert page.locator(f"#{group}-{first}").is_hidden()
    page.keyboard.press("End")
    assert tabs.last.get_attribute("aria-selected") == "true"


def test_a_heading_sorts_its_table_by_number_and_back(visit: Any) -> None:
    page = visit("life")
    button = page.locator("#costs th button", has_text="replayed")
    column = page.evaluate("[...document.querySelectorAll('#costs th')].findIndex(h => h.textContent === 'replayed')")
    cells = f"[...document.querySelectorAll('#costs tbody tr')].map(r => Number(r.cells[{column}].textContent))"
    button.focus()
    page.keyboard.press("Enter")
    up = page.evaluate(cells)
    page.keyboard.press("Enter")
    assert up == sorted(up) and page.evaluate(cells) == sorted(up, reverse=True) and len(set(up)) > 1
    assert page.locator("#costs th[aria-sort=descending]").count() == 1


@pytest.mark.parametrize("name", ["life", "runs"])
def test_a_phone_needs_no_sideways_scrolling_of_the_page(visit: Any, name: str) -> None:
    page = visit(name, viewport={"width": 360, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


CONTRAST = """
() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
  const found = [];
  for (const e of document.querySelectorAll('td, th, p, dt, dd, h1, h2, h3, h4, a, button, summary, li span')) {
    if (!e.textContent.trim() || !e.offsetParent || e.classList.contains('hidden')) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push([e.tagName, e.className, e.textContent.trim().slice(0, 30), ratio].join(' '));
  }
  return found;
}
"""


@pytest.mark.parametrize("name", ["life", "runs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_themes(visit: Any, name: str, scheme: str) -> None:
    page = visit(name, color_scheme=scheme)
    # Every step of the colour scale, whether or not this life has it.
    page.evaluate(
        "() => { const row = document.querySelector('tbody tr'); for (let n = 0; n <= 10; n++) {"
        "const cell = row.insertCell(); cell.className = 'l' + n; cell.textContent = '50 %'; } }"
    )
    assert page.evaluate(CONTRAST) == []


def test_the_theme_follows_the_system_until_it_is_chosen(visit: Any) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit("life").evaluate(colour), visit("life", color_scheme="dark")
    before = dark.evaluate(colour)
    assert before != light
    dark.locator(".theme").click()
    assert dark.evaluate(colour) == light and dark.locator(".theme").inner_text() == "Dark theme"


@pytest.mark.parametrize("name", ["life", "runs"])
def test_a_screen_reader_finds_names_headings_and_a_way_past_the_navigation(visit: Any, name: str) -> None:
    page = visit(name)
    assert page.evaluate("[...document.querySelectorAll('[role=img]')].every(e => e.getAttribute('aria-label'))")
    assert page.evaluate("[...document.querySelectorAll('thead th')].every(e => e.scope === 'col')")
    assert page.evaluate("[...document.querySelectorAll('main, nav, header, footer')].length") >= 4
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
