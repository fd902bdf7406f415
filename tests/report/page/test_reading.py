"""The page in a real browser: it reads well in light, dark, on a phone, on paper, and with a screen reader."""

from itertools import pairwise
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["life", "runs"])
def test_a_phone_needs_no_sideways_scrolling_of_the_page(visit: Any, name: str) -> None:
    page = visit(name, viewport={"width": 360, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_screen_shows_every_column_of_a_short_life(visit: Any) -> None:
    """Unfolded, only what has a column for each layer may need more."""
    page = visit("life", viewport={"width": 1100, "height": 800})
    wider = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{wider}.map(e => e.getAttribute('aria-label'))") == []


CONTRAST = """
() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
  const found = [];
  const seen = e => e.getClientRects().length && e.textContent.trim() && !e.closest('.hidden');
  const texts = 'td, th, p, dt, dd, h1, h2, h3, h4, a, button, summary, li span, svg text';
  for (const e of document.querySelectorAll(texts)) {
    if (!seen(e)) continue;
    const style = getComputedStyle(e), ink = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
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
    assert page.evaluate("document.querySelectorAll('svg text').length") > 10


def test_a_heat_map_keeps_its_colours_under_the_mouse(visit: Any) -> None:
    page = visit("life")
    row = page.locator("#scores table.heat tbody tr:visible").last
    colours = "e => [...e.cells].map(cell => getComputedStyle(cell).backgroundColor)"
    before = row.evaluate(colours)
    row.locator("td").first.hover()
    assert row.evaluate(colours) == before and page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("name", ["life", "runs"])
def test_charts_are_laid_out_for_the_screen_they_are_on(visit: Any, name: str) -> None:
    there = "[...document.querySelectorAll('.chart svg')].filter(e => e.getClientRects().length)"
    shown = f"{there}.map(e => e.classList[0])"
    smallest = f"Math.min(...{there}.map(e => 12 * e.getBoundingClientRect().width / e.viewBox.baseVal.width))"
    for width, size in ((1280, "wide"), (360, "narrow")):
        page = visit(name, viewport={"width": width, "height": 800})
        assert set(page.evaluate(shown)) == {size}
        assert page.evaluate(smallest) > 11  # letters stay readable, since nothing is shrunk to fit


def test_paper_is_white_with_every_metric_on_it_whatever_the_theme(visit: Any) -> None:
    page = visit("life", color_scheme="dark")
    page.locator(".theme").click()
    page.locator(".theme").click()  # dark by choice, too
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(252, 252, 250)"
    assert page.evaluate("[...document.querySelectorAll('[role=tabpanel]')].every(e => e.getClientRects().length)")
    assert page.locator("nav").is_hidden() and page.evaluate(CONTRAST) == []


def test_without_scripts_everything_is_there_to_read(visit: Any) -> None:
    page = visit("life", java_script_enabled=False)
    panels = page.locator("[role=tabpanel]")
    assert panels.count() > 3 and all(panels.nth(number).is_visible() for number in range(panels.count()))
    assert page.locator(".theme").is_hidden() and page.locator(".tabs").first.is_hidden()


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
