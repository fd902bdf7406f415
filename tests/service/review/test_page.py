"""The page in a real browser: everything by keyboard, nothing lost, and nothing that came in runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.service.review.conftest import Serve
from tests.writers import write_jsonl

from lifealign.service.review.server import ReviewServer

pytestmark = pytest.mark.slow

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens the page of a review; at the end nothing may have gone to the console, and nothing past the server."""
    said: list[str] = []
    contexts = []

    def go(server: ReviewServer, **settings: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 820}} | settings))
        contexts.append(context)
        page = context.new_page()
        home = f"http://127.0.0.1:{server.server_port}/"
        page.on("console", lambda message: None if "status of 4" in message.text else said.append(message.text))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: None if request.url.startswith(home) else said.append(request.url))
        page.goto(server.address)
        page.locator("#pair:not([hidden]), #done:not([hidden])").wait_for()
        return page

    yield go
    for context in contexts:
        context.close()
    assert [text for text in said if not text.startswith("data:")] == []


def shown(page: Any, number: int) -> Any:
    """Waits until a pair is on the page."""
    page.locator("#title", has_text=f"Pair {number} of").wait_for(state="attached")  # the policy allows no evaluation
    page.locator("body:not([aria-busy])").wait_for(state="attached")
    return page


def written(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def side_of(page: Any, text: str) -> str:
    return "a" if page.inner_text("#text-a").startswith(text) else "b"


def test_pairs_are_decided_by_keyboard(serve: Serve, visit: Visit, out: Path) -> None:
    with serve() as server:
        page = visit(server)
        assert page.url == f"http://127.0.0.1:{server.server_port}/"  # the token is not on screen
        assert page.inner_text("#count") == "0 of 4"
        first = page.inner_text("#text-a")
        page.keyboard.press("a")
        shown(page, 2)
        assert written(out)[0]["chosen"] == first and page.inner_text("#count") == "1 of 4"
        assert page.inner_text("#status") == "Pair 1: A is better, saved. Now pair 2."
        second = page.inner_text("#text-b")
        page.keyboard.press("b")
        shown(page, 3)
        assert written(out)[1]["chosen"] == second

        page.keyboard.press("e")  # edit: which one, then the text
        side = side_of(page, "bad")
        page.keyboard.press(side)
        box = page.locator(f"#box-{side}")
        assert box.input_value() == "bad 3" and box.evaluate("e => e === document.activeElement")
        page.keyboard.type(", and sab")  # letters are letters here
        page.keyboard.press("Control+Enter")
        shown(page, 4)
        assert written(out)[2] | {"prompt": 0, "source": 0} == {
            "prompt": 0, "chosen": "bad 3, and sab", "rejected": "bad 3", "source": 0, "why": "edited",
        }  # fmt: skip

        page.keyboard.press("s")
        page.wait_for_selector("#done:not([hidden])")
        assert page.inner_text("#summary") == "3 of 4 pairs are decided, 1 skipped." and len(written(out)) == 3
        page.keyboard.press("u")
        shown(page, 4)
        page.keyboard.press("u")
        shown(page, 3)
        assert len(written(out)) == 2 and page.inner_text("#count") == "2 of 4"
        page.keyboard.press("ArrowLeft")
        shown(page, 2)
        assert page.inner_text("#state") == "Decided: B is better" and page.inner_text("#mark-b") == "better"
        page.keyboard.press("ArrowRight")
        shown(page, 3)
        page.reload()  # goes on at the first that is open
        shown(page, 3)
    with serve() as server:
        page = shown(visit(server), 3)
        page.keyboard.press("ArrowLeft")
        shown(page, 2)
        page.keyboard.press("a")  # another decision about the same pair
        shown(page, 3)
        assert len(written(out)) == 2 and written(out)[1]["rejected"] == second


def test_an_edit_is_left_without_a_trace_and_found_again(serve: Serve, visit: Visit, out: Path) -> None:
    with serve() as server:
        page = visit(server)
        page.keyboard.press("e")
        page.keyboard.press("Escape")
        assert page.locator("#take-a").is_visible()
        page.click("#edit-a")
        page.keyboard.type(" more")
        page.keyboard.press("Escape")
        assert page.locator("#editor-a").is_hidden() and not out.exists() and "waits here" in page.inner_text("#status")
        page.keyboard.press("e")
        page.keyboard.press("Enter")  # the first of the two buttons has the focus
        assert page.locator("#box-a").input_value().endswith(" more")
        page.locator("#box-a").fill(page.inner_text("#text-a"))
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#problem:not([hidden])")
        assert "found the answer as it was" in page.inner_text("#problem") and not out.exists()
        assert page.locator("#box-a").is_visible()
        page.locator("#box-a").fill("quite another")
        page.click("#save")
        shown(page, 2)
        assert page.locator("#problem").is_hidden() and written(out)[0]["chosen"] == "quite another"
        page.keyboard.press("ArrowLeft")
        shown(page, 1)
        assert page.inner_text("#edited-a") == "quite another" and page.inner_text("#mark-a") == "edited"


def test_two_tabs_do_not_overwrite_each_other(serve: Serve, visit: Visit, out: Path) -> None:
    with serve() as server:
        one, two = visit(server), visit(server)
        chosen = one.inner_text("#text-a")
        two.keyboard.press("e")
        two.keyboard.press("b")
        two.keyboard.type(" edited")
        one.keyboard.press("a")
        shown(one, 2)
        two.keyboard.press("Control+Enter")
        two.wait_for_selector("#problem:not([hidden])")
        assert "decided elsewhere" in two.inner_text("#problem") and two.inner_text("#state") == "Decided: A is better"
        assert written(out)[0]["chosen"] == chosen and two.locator("#box-b").input_value().endswith(" edited")
        two.keyboard.press("Control+Enter")  # now knowing it
        shown(two, 2)
        assert [row["why"] for row in written(out)] == ["edited"]
        one.keyboard.press("u")
        one.wait_for_selector("#problem:not([hidden])")
        shown(one, 1)
        assert "undo is about this one now" in one.inner_text("#problem") and len(written(out)) == 1


def test_a_key_that_is_held_or_meant_for_the_browser_decides_nothing(serve: Serve, visit: Visit, out: Path) -> None:
    with serve() as server:
        page = visit(server)
        for key in ("Control+a", "Alt+b", "x", "Escape", "Control+Enter"):
            page.keyboard.press(key)
        page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'a', repeat: true }))")
        page.uncheck("#keys")
        for key in ("a", "s", "ArrowRight"):
            page.keyboard.press(key)
        page.wait_for_timeout(200)
        shown(page, 1)
        assert not out.exists()
        page.check("#keys")
        page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', { key: '\u0444', code: 'KeyA' }))")
        shown(page, 2)
        assert len(written(out)) == 1


def test_what_came_in_is_text(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    talk = [{"role": role, "content": EVIL} for role in ("system", "user", "assistant", "user")]
    file = write_jsonl(
        tmp_path / f"{EVIL[10:18]}.jsonl", [{"prompt": talk, "chosen": EVIL, "rejected": "  two\n  lines"}]
    )
    with serve(file) as server:
        page = visit(server)
        assert page.title().startswith("Review: ") and page.locator("main img, main script").count() == 0
        assert [turn.inner_text().splitlines()[0].lower() for turn in page.locator("#turns li").all()] == [
            "system", "user", "assistant", "user",
        ]  # fmt: skip
        assert page.locator("#turns .text").all_text_contents() == [EVIL] * 4
        assert {page.text_content("#text-a"), page.text_content("#text-b")} == {EVIL, "  two\n  lines"}
        side = side_of(page, EVIL)
        page.click(f"#edit-{side}")
        assert page.locator(f"#box-{side}").input_value() == EVIL


def test_it_is_finished_on_the_page(serve: Serve, visit: Visit, out: Path) -> None:
    with serve() as server:
        page = visit(server)
        for number in (2, 3, 4):
            page.keyboard.press("a")
            shown(page, number)
        page.keyboard.press("s")
        page.click("#again")
        shown(page, 4)
        page.keyboard.press("b")
        page.wait_for_selector("#done:not([hidden])")
        assert page.locator("#again").is_hidden()
        page.click("#finish-done")
        page.wait_for_selector("#ended:not([hidden])")
        assert page.inner_text("#result") == "4 of 4 pairs are decided, 0 skipped."
        assert page.inner_text("#ended code") == f"lifealign check {out}"
    with serve() as server:
        assert visit(server).locator("#done").is_visible()


def test_a_server_that_has_ended_is_said(serve: Serve, browser: Any) -> None:
    context = browser.new_context()
    with serve() as server:
        page = context.new_page()
        page.goto(server.address)
        shown(page, 1)
    page.keyboard.press("a")
    page.wait_for_selector("#problem:not([hidden])")
    assert "Everything that was decided is kept" in page.inner_text("#problem")
    context.close()


def test_it_has_names_for_those_who_do_not_see_it(serve: Serve, visit: Visit) -> None:
    with serve() as server:
        page = visit(server)
        for role, name in (
            ("button", "A is better"),
            ("button", "Skip"),
            ("button", "Finish"),
            ("heading", "Answer A"),
            ("heading", "Pair 1 of 4"),
            ("article", "Answer B"),
            ("region", "Conversation"),
            ("progressbar", "0 of 4"),
            ("checkbox", "Single keys decide"),
        ):
            assert page.get_by_role(role, name=name, exact=True).count() == 1, name
        assert page.get_by_role("status").count() == 1
        order = []
        for _ in range(8):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert order == ["talk", "edit-a", "edit-b", "take-a", "take-b", "edit", "leave-out", "undo"]


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (320, "light"), (1200, "dark")])
def test_it_fits_the_screen_and_can_be_read(
    serve: Serve, visit: Visit, tmp_path: Path, width: int, scheme: str
) -> None:
    long = "A long word: " + 80 * "x" + "\n" + 30 * "Many words in many lines. "
    talk = [{"role": role, "content": f"{n}. {long}"} for n, role in enumerate(("user", "assistant") * 6 + ("user",))]
    file = write_jsonl(tmp_path / "long.jsonl", [{"prompt": talk, "chosen": long, "rejected": f"{long} And more."}])
    with serve(file) as server:
        page = visit(server, viewport={"width": width, "height": 800}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        bar = page.locator("#actions").bounding_box()
        assert bar["y"] + bar["height"] <= 801 and bar["height"] < 240  # in reach, and not all of the screen
        assert page.evaluate("document.getElementById('talk').scrollTop") > 0  # at the turn that is answered
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark") and ink != paper
