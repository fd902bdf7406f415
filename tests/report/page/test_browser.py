"""The page in a real browser: it renders, nothing that came in runs, and it answers to mouse and keyboard."""

from typing import Any

import pytest

pytestmark = pytest.mark.slow


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
    chosen = tabs.nth(1).get_attribute("data-choice")
    for group in ("scores", "time", "transfer"):
        assert page.locator(f"#{group}-{chosen}").is_visible()
        first = tabs.first.get_attribute("data-choice")
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


def test_a_heat_map_is_one_stop_of_the_tab_key_and_arrows_move_in_it(visit: Any) -> None:
    page = visit("life")
    page.locator("#scores [role=tab]", has_text="preference accuracy").click()  # one that every task has
    heat = page.locator("#scores table.heat:visible")
    assert heat.evaluate("e => [...e.querySelectorAll('[tabindex=\"0\"]')].length") == 1
    focused = "document.activeElement.dataset.tip"
    heat.locator("[tabindex='0']").focus()
    assert page.evaluate(focused).startswith("greet, base model")
    for key, expected in (
        ("ArrowLeft", "greet, base model"),  # there is nothing further left
        ("ArrowDown", "greet after 01-greet"),
        ("ArrowRight", "greet after 01-greet"),  # no other task was known then
        ("ArrowDown", "greet after 02-"),
        ("ArrowDown", "greet after 03-third"),
        ("ArrowRight", "a-task-with-a-long-name after 03-third"),
        ("ArrowRight", "third after 03-third"),
        ("ArrowUp", "third, base model"),  # across the steps in which it was not learnt yet
    ):
        page.keyboard.press(key)
        assert page.evaluate(focused).startswith(expected), key
        assert page.locator("#tip").inner_text() == page.evaluate(focused)
    assert heat.evaluate("e => [...e.querySelectorAll('[tabindex=\"0\"]')].length") == 1


def test_figures_of_the_memory_are_chosen_without_touching_the_metric(visit: Any) -> None:
    page = visit("life")
    metric = page.locator("#scores [role=tab][aria-selected=true]").get_attribute("data-choice")
    page.locator("#memory [role=tab]", has_text="kept rank").click()
    assert page.locator("#memory-rank_kept").is_visible() and page.locator("#memory-overlap_energy").is_hidden()
    assert page.locator("#scores [role=tab][aria-selected=true]").get_attribute("data-choice") == metric
    assert page.locator(f"#scores-{metric}").is_visible()
    cell = page.locator("#memory-rank_kept svg.cells rect").first
    cell.hover()
    assert page.locator("#tip").inner_text().startswith("q_proj.lora_A, layer 0: ")


def test_code_is_copied_and_says_so(visit: Any) -> None:
    page = visit("life", permissions=["clipboard-read", "clipboard-write"])
    copy = page.locator("#settings .copy").first
    copy.click()
    page.wait_for_function("e => e.textContent !== 'Copy'", arg=copy.element_handle())
    code = page.locator("#settings pre.code").first.inner_text()
    copied = copy.inner_text() == "Copied"  # a browser that gives files no clipboard selects the code instead
    assert page.evaluate("copied => copied ? navigator.clipboard.readText() : String(getSelection())", copied) == code
