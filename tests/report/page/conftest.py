"""Pages of a small life and of small runs, and a browser to look at them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import letter_task, pair
from tests.writers import write_general_text

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.task import Task
from lifealign.experiments.result_of_life import load_run
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.report.page.life_page import life_page
from lifealign.report.page.runs_page import runs_page
from lifealign.settings.section import build_config

EVIL = "<script>document.title='owned';alert(1)</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="session")
def pages(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of the page of a life with three tasks, one of them malicious, and of one with three runs."""
    folder = tmp_path_factory.mktemp("pages")
    small = {"num_train_epochs": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    config = build_config(
        LifeConfig,
        {
            "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
            "lora": {"lora_r": 4, "lora_alpha": 8},
            "sft": small,
            "preference": small,
            "evaluation": {"max_new_tokens": 4, "general_text": write_general_text(folder)},
        },
    )
    life = Life.create(folder / "lifealign", config)
    rows = tuple(pair(f"{EVIL} {number}", "yes", "no") for number in range(4))
    life.learn(Task("greet", rows, rows, AnswerCheck(max_words=3)))
    life.learn(letter_task("a-task-with-a-long-name", "c", "d"))
    life.learn(letter_task("third", "e", "f"))
    (folder / "life.html").write_text(life_page(life))
    run = load_run(life.directory.path)
    seventh = run.model_copy(update={"label": "ER", "settings": run.settings | {"seed": 7}})
    runs = [run, run.model_copy(update={"label": "ER"}), seventh]
    (folder / "runs.html").write_text(runs_page(runs, "ER"))
    return {name: (folder / f"{name}.html").as_uri() for name in ("life", "runs")}


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
