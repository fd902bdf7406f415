"""Whatever breaks while a step is scored costs that score and not the step; evaluating later fills the hole."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.tiny import letter_task

from lifealign.cli import lives, options, streams
from lifealign.cli import main as cli
from lifealign.cli import measure as measure_verbs
from lifealign.data.answer_check import AnswerCheck
from lifealign.errors import Unscored
from lifealign.evaluation.evaluator import Evaluator
from lifealign.evaluation.scores import Scores
from lifealign.experiments.bootstrap import paired_bootstrap
from lifealign.experiments.compare import run_comparison
from lifealign.experiments.result import Hole
from lifealign.experiments.result_of_life import result_of
from lifealign.experiments.settings import ExperimentConfig
from lifealign.experiments.summary import compare_results
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.learn import run_stream
from lifealign.life.life import Life
from lifealign.life.measure import measure
from lifealign.report.page.life_page import life_page
from lifealign.report.tables import tables
from lifealign.report.terminal import holes_text
from lifealign.settings.section import build_config

MakeLife = Callable[..., Life]
ONE = replace(letter_task("one", "a", "b"), check=AnswerCheck(max_words=3))
TWO = letter_task("two", "c", "d")
METRICS = ("adherence", "margin", "rouge_l", "bleu", "perplexity")


class Boom(RuntimeError):
    """What no one expected."""


def raising(*_: Any, **__: Any) -> Any:
    raise Boom("out of\nmemory")


Break = Callable[[pytest.MonkeyPatch], None]


def breaks_generation_of(name: str) -> Break:
    """Answers break whenever a prompt of a task is among those asked for."""

    def patch(patcher: pytest.MonkeyPatch) -> None:
        import lifealign.model.answer_cache as module

        generate = module.generate_answers

        def answers(runtime: Any, prompts: Sequence[Any], **options: Any) -> list[str]:
            if any(prompt[0].content.startswith(name) for prompt in prompts):
                raise Boom("out of\nmemory")
            return generate(runtime, prompts, **options)

        patcher.setattr(module, "generate_answers", answers)

    return patch


def replacing(target: str, value: Any = raising) -> Break:
    return lambda patcher: patcher.setattr(target, value)


MEMORY = "Boom: out of memory"
BROKEN: dict[str, tuple[Break, dict[str, dict[str, str]]]] = {
    "one task's answers": (
        breaks_generation_of("two"),
        {"rouge_l": {"two": MEMORY}, "bleu": {"two": MEMORY}},
    ),
    "all answers": (
        replacing("lifealign.model.answer_cache.generate_answers"),
        {
            "adherence": {"one": MEMORY},
            "rouge_l": {"one": MEMORY, "two": MEMORY},
            "bleu": {"one": MEMORY, "two": MEMORY},
        },
    ),
    "margins": (
        replacing("lifealign.evaluation.evaluator.held_out_margins"),
        {"margin": {"one": MEMORY, "two": MEMORY}},
    ),
    "a margin that is no number": (
        replacing("lifealign.evaluation.evaluator.held_out_margins", lambda *_, **__: [float("nan")]),
        {"margin": dict.fromkeys(("one", "two"), "ValueError: found a score of nan, expected a finite one")},
    ),
    "a metric that is no number": (
        replacing("lifealign.evaluation.evaluator.bleu", lambda *_: float("inf")),
        {"bleu": dict.fromkeys(("one", "two"), "ValueError: found a score of inf, expected a finite one")},
    ),
    "general text": (
        replacing("lifealign.evaluation.evaluator.general_loss"),
        {"perplexity": {"general text": MEMORY}},
    ),
    "the scoring itself": (
        replacing("lifealign.evaluation.evaluator.Evaluator.score"),
        {
            "adherence": {"one": MEMORY},
            **{metric: {"one": MEMORY, "two": MEMORY} for metric in ("margin", "rouge_l", "bleu")},
            "perplexity": {"general text": MEMORY},
        },
    ),
}


@pytest.fixture
def life(make_life: MakeLife) -> Life:
    return make_life(evaluation={"metrics": METRICS})


@pytest.fixture
def broken() -> Callable[[Break], AbstractContextManager[None]]:
    """Breaks something as long as a context lasts."""

    @contextmanager
    def context(patch: Break) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patcher:
            patch(patcher)
            yield

    return context


def numbers(life: Life) -> list[Any]:
    """What is known of every step, answers aside; a metric that no task has may stand there with nothing in it."""
    return [
        [
            {metric: found for metric, found in (part or {}).items() if found}
            for part in (one.scores, one.base, one.outcomes, one.counts, one.general, one.holes, one.base_holes)
        ]
        for one in life.records
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Numbers and adapter of two tasks, learnt without anything breaking; filled by the first test that asks."""
    return {}


def expected(make_life: MakeLife, undisturbed: dict[str, Any]) -> dict[str, Any]:
    if not undisturbed:
        smooth = make_life(evaluation={"metrics": METRICS})
        run_stream(smooth.workspace, [ONE, TWO])
        matrices = {metric: matrix.as_dict() for metric, matrix in smooth.scores.items()}
        undisturbed |= {"numbers": numbers(smooth), "adapter": read_adapter_of(smooth.directory), "matrices": matrices}
    return undisturbed


@pytest.mark.parametrize("what", BROKEN)
def test_the_step_is_committed_with_a_hole_and_evaluating_fills_it(
    life: Life, make_life: MakeLife, broken: Any, undisturbed: dict[str, Any], what: str, tmp_path: Path
) -> None:
    smooth = expected(make_life, undisturbed)
    patch, holes = BROKEN[what]
    life.learn(ONE)
    with broken(patch):
        version = life.learn(TWO)
    assert version.name == "02-two" and Life.open(life.directory.path).directory.verify(life.versions)
    adapter = read_adapter_of(life.directory)
    assert all((adapter[name] == factor).all() for name, factor in smooth["adapter"].items())
    first, second = life.records
    assert first.holes == {} and second.holes == holes
    for metric, matrix in life.scores.items():
        missing = list(holes.get(metric, {}))
        assert [task for step, task in matrix.holes if step == 1] == missing
        assert {matrix.reasons[1, task] for task in missing} == set(holes.get(metric, {}).values())
        assert list(matrix.tasks) == (["one"] if metric == "adherence" else ["one", "two"])  # the hole has a column
        assert (matrix.last is None) == (matrix.average is None) == bool(missing)
        if "one" in missing:
            assert matrix.backward_transfer is None and matrix.forgetting is None
    assert (second.general is None) == ("perplexity" in holes)
    page, card = life_page(life), (life.directory.path / "versions/02-two/README.md").read_text()
    reason = next(iter(next(iter(holes.values())).values()))
    assert reason in page and reason in card.replace("\\", "")
    measure(life.workspace)
    assert numbers(life) == smooth["numbers"]
    assert {metric: matrix.as_dict() for metric, matrix in life.scores.items()} == smooth["matrices"]
    heard: list[str] = []
    measure(Life.open(life.directory.path).workspace, say=heard.append)
    assert heard == ["nothing to do: everything is already measured"]


def test_a_life_whose_first_step_could_not_be_scored_at_all_shows_holes_and_learns_on(
    life: Life, make_life: MakeLife, broken: Any, undisturbed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    smooth = expected(make_life, undisturbed)
    with broken(BROKEN["the scoring itself"][0]):
        run_stream(life.workspace, [ONE, TWO])  # the stream goes on after a hole
    told = "01-one: 9 scores are missing (Boom: out of memory): adherence of one, "
    assert any(message.startswith(told) for message in caplog.messages)
    assert len(life.steps) == 2 and {metric: matrix.last for metric, matrix in life.scores.items()} == dict.fromkeys(
        ("adherence", "margin", "bleu", "rouge_l")
    )
    assert life.scores["margin"].rows == [{}, {}] and life.scores["margin"].base_reasons == dict.fromkeys(
        ("one", "two"), MEMORY
    )
    assert holes_text(life.scores["margin"], ["01-one", "02-two"]).startswith("one after 01-one (Boom: out of memory)")
    life_page(life)
    measure(life.workspace)
    assert numbers(life) == smooth["numbers"]


def test_where_all_answers_together_break_those_of_each_task_are_tried(
    life: Life, make_life: MakeLife, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lifealign.model import answer_cache

    generated, asked = answer_cache.generate_answers, []

    def once(runtime: Any, prompts: Sequence[Any], **options: Any) -> list[str]:
        asked.append(len(prompts))
        if len(prompts) > 4:
            raise Boom("out of memory")
        return generated(runtime, prompts, **options)

    monkeypatch.setattr(answer_cache, "generate_answers", once)
    run_stream(life.workspace, [ONE, TWO])
    assert asked == [4, 4, 4, 8, 4, 4]  # base and model on one; base on two, model on both, then on each
    assert numbers(life) == expected(make_life, undisturbed)["numbers"]


def test_an_interruption_while_scoring_commits_the_step_first(
    life: Life, make_life: MakeLife, broken: Any, undisturbed: dict[str, Any]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    patch = replacing("lifealign.evaluation.evaluator.held_out_margins", interrupted)
    with broken(patch), pytest.raises(KeyboardInterrupt):
        run_stream(life.workspace, [ONE, TWO])
    assert [version.name for version in life.steps] == ["01-one"]
    (record,) = life.records
    assert record.holes["margin"] == {"one": "interrupted"} and record.holes["perplexity"] == {
        "general text": "interrupted"
    }
    assert set(record.scores) == {"adherence", "rouge_l", "bleu"}  # what was there by then
    run_stream(life.workspace, [ONE, TWO])
    measure(life.workspace)
    assert numbers(life) == expected(make_life, undisturbed)["numbers"]


def test_an_evaluation_that_breaks_keeps_what_was_known_and_says_what_is_missing(life: Life, broken: Any) -> None:
    with broken(breaks_generation_of("two")):
        run_stream(life.workspace, [ONE, TWO])
        known = life.scores["bleu"].as_dict()
        with pytest.raises(
            Unscored, match=r"02-two: bleu of two \(Boom: out of memory\).*`lifealign evaluate"
        ) as caught:
            measure(life.workspace, ["bleu"])
    assert caught.value.exit_code == 1
    with broken(BROKEN["all answers"][0]), pytest.raises(Unscored):
        life.workspace.answers._own.values.clear()
        measure(life.workspace, ["bleu"])
    assert life.scores["bleu"].as_dict() == known and life.scores["bleu"].rows[1].keys() == {"one"}
    measure(life.workspace, ["bleu"])
    assert life.scores["bleu"].holes == [] and life.scores["bleu"].base.keys() == {"one", "two"}


def test_a_hole_beside_a_score_is_filled_without_losing_either_or_the_base(
    life: Life, make_life: MakeLife, broken: Any, undisturbed: dict[str, Any]
) -> None:
    from lifealign.evaluation import evaluator as evaluate

    margins = evaluate.held_out_margins

    def of_two(runtime: Any, pairs: Sequence[Any], *rest: Any, **options: Any) -> list[float]:
        return raising() if pairs[0].source.startswith("two") else margins(runtime, pairs, *rest, **options)

    life.learn(ONE)
    with broken(replacing("lifealign.evaluation.evaluator.held_out_margins", of_two)):
        life.learn(TWO)
    assert life.records[1].holes == {"margin": {"two": MEMORY}} and life.records[1].base["margin"] == {"two": 0.0}
    known = life.scores["margin"].as_dict()
    with broken(BROKEN["margins"][0]), pytest.raises(Unscored, match=r"1 score could not .* margin of two"):
        measure(life.workspace, ["margin"])
    assert life.scores["margin"].as_dict() == known
    measure(life.workspace)
    assert numbers(life) == expected(make_life, undisturbed)["numbers"]


def test_an_evaluation_without_any_number_settles_no_settings(life: Life, broken: Any, user_cache: Path) -> None:
    life.learn(ONE)
    before = life.scores["margin"].as_dict()
    with broken(BROKEN["margins"][0]), broken(BROKEN["all answers"][0]), pytest.raises(Unscored):
        life.workspace.answers._own.values.clear()
        life.workspace.answers._of_base.values.clear()
        shutil.rmtree(user_cache / "bases")  # not even what the base says is known
        measure(life.workspace, ["paper_bleu"])
    measure(life.workspace, ["paper_bleu"], overrides=["max_new_tokens=6"])  # other settings than what broke
    rouge = life.scores["rouge_l"].as_dict()
    with broken(BROKEN["all answers"][0]), pytest.raises(Unscored):
        measure(life.workspace, ["rouge_l"], overrides=["max_new_tokens=7"], replace=True)
    assert life.scores["rouge_l"].as_dict() == rouge  # nothing took its place
    assert life.scores["paper_bleu"].last is not None and life.scores["margin"].as_dict() == before


def test_tasks_with_models_of_their_own_carry_a_hole_and_what_filled_it(make_life: MakeLife, broken: Any) -> None:
    evaluation = {"metrics": ("margin",), "general_text": None}
    life, smooth = (make_life(method="stl", evaluation=evaluation) for _ in range(2))
    run_stream(smooth.workspace, [ONE, TWO, letter_task("three", "e", "f")])
    with broken(BROKEN["margins"][0]):
        life.learn(ONE)
    life.learn(TWO)
    assert life.records[1].holes == {"margin": {"one": MEMORY}} and life.scores["margin"].last is None
    measure(life.workspace)
    life.learn(letter_task("three", "e", "f"))
    assert [record.holes for record in life.records] == [{}] * 3
    assert life.scores["margin"].as_dict() == smooth.scores["margin"].as_dict()


def test_a_model_card_that_cannot_be_made_does_not_cost_the_step(life: Life, broken: Any) -> None:
    with broken(replacing("lifealign.life.commit.model_card")):
        life.learn(ONE)
    card = (life.directory.path / "versions/01-one/README.md").read_text()
    assert card.startswith("# 01-one") and MEMORY in card and life.scores["margin"].last is not None


def test_what_scoring_does_to_the_model_is_not_committed(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = read_adapter_of(life.directory, "00-base")

    def spoiled(self: Evaluator, tasks: Any, policy: Any, scores: Scores | None = None) -> Scores:
        for parameter in self.runtime.model.parameters():
            parameter.data.fill_(float("nan"))
        raise Boom

    monkeypatch.setattr(Evaluator, "score", spoiled)
    life.learn(ONE)
    assert (
        all(factor.isfinite().all() for factor in read_adapter_of(life.directory).values())
        and read_adapter_of(life.directory).keys() == clean.keys()
    )


# -- results and comparisons -------------------------------------------------------------------------------------------


def test_a_result_says_its_holes_and_nothing_is_averaged_over_them(
    life: Life, make_life: MakeLife, broken: Any
) -> None:
    other = make_life(evaluation={"metrics": METRICS}, seed=7)
    run_stream(life.workspace, [ONE, TWO])
    with broken(breaks_generation_of("two")):
        run_stream(other.workspace, [ONE, TWO])
    whole, holed = result_of(life), result_of(other)
    assert holed.scores["bleu"].holes == [Hole(step=1, task="two", reason=MEMORY)]
    assert holed.scores["bleu"].summary.last is None and holed.scores["margin"].holes == []
    results = [one.model_copy(update={"label": "ours"}) for one in (whole, holed)]
    again = whole.model_copy(update={"settings": holed.settings})
    results += [one.model_copy(update={"label": "theirs"}) for one in (whole, again)]
    (order,) = compare_results(results, "theirs").orders
    rouge, margin = (next(table for table in order.metrics if table.metric == name) for name in ("rouge_l", "margin"))
    _, ours, theirs = rouge.rows
    assert ours.statistics["last"] is None and ours.tasks["two"] is None and ours.tasks["one"] is not None
    assert theirs.statistics["last"] is not None and ours.differences == {"last": None, "backward_transfer": None}
    assert margin.rows[1].statistics["last"] is not None and margin.holes == ()
    assert rouge.holes == (f"ours, seed 7: two after 02-two ({MEMORY})",)
    assert paired_bootstrap(results[:2], results[2:], "rouge_l", "last") is None
    notes = [note for table in tables(compare_results(results, None)) for note in table.notes]
    assert f"Note: missing, so no mean is taken over it: {rouge.holes[0]}." in notes
    assert "Held-out examples: n = 4 per task." in notes


def test_a_cell_with_holes_is_finished_and_takes_over_what_was_evaluated_later(
    tmp_path: Path, tiny_folder: Path, broken: Any
) -> None:
    from lifealign.experiments.cells import cells_of, finished

    for task in (ONE, TWO):
        for split, pairs in (("train", task.train), ("test", task.test)):
            rows = [{"prompt": p.prompt[0].content, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
            (tmp_path / f"{task.name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ("one", "two")
    settings = {
        "output_dir": str(tmp_path / "out"),
        "model": {"model_name_or_path": str(tiny_folder), "dtype": "float32"},
        "evaluation": {"metrics": ["margin"]},
        "tasks": [{"name": n, **{s: str(tmp_path / f"{n}-{s}.jsonl") for s in ("train", "test")}} for n in names],
        "compare": {"methods": ["seqft"], "seeds": [1]},
    }
    cells = cells_of(build_config(ExperimentConfig, settings))
    said: list[str] = []
    with broken(BROKEN["margins"][0]):
        assert run_comparison(cells, say=said.append) == []
    assert said[-1].startswith("SeqFT, stream, seed 1: finished (1 of 1); missing: margin of one after 01-one (Boom")
    result = finished(cells[0])
    assert result is not None and result.scores["margin"].summary.last is None
    measure(Life.open(cells[0].experiment.output_dir).workspace)
    with broken(replacing("lifealign.experiments.executors.live")):
        assert run_comparison(cells, say=said.append) == []
    filled = finished(cells[0])
    assert filled is not None and filled.scores["margin"].holes == []
    assert filled.scores["margin"].summary.last is not None  # and nothing was trained again


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def lifealign(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command line in this process: exit code, and all that it prints."""
    levels = {name: logging.getLogger(name).level for name in ("py.warnings", "lifealign")}
    console = Console(width=160)
    for module in (options, lives, measure_verbs, streams):
        monkeypatch.setattr(module, "console", console)

    def command(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lifealign", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        logging.captureWarnings(False)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    return command


def test_the_command_line_says_what_is_left_out_and_what_is_missing(
    make_life: MakeLife, lifealign: Callable[..., tuple[int, str]], broken: Any, tmp_path: Path
) -> None:
    life = make_life("bot", data={"max_length": 300}, evaluation={"metrics": ("margin",), "general_text": None})
    bot, train, test = life.directory.path, tmp_path / "one.jsonl", tmp_path / "late.jsonl"
    rows = [{"prompt": one.prompt[0].content, "chosen": one.chosen, "rejected": one.rejected} for one in ONE.train]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out = [{"prompt": "x" * length, "chosen": "aaa", "rejected": "bbb"} for length in (10, 281, 282, 283)]
    test.write_text("".join(json.dumps(row) + "\n" for row in held_out))

    with broken(BROKEN["margins"][0]):
        code, shown = lifealign("learn", bot, train, "--test", test)
    assert code == 1 and len(Life.open(bot).steps) == 1
    assert f"1 of 4 held-out pairs fit in 300 tokens; 3 left out ({test}:2, {test}:3, {test}:4)" in " ".join(
        shown.split()
    )
    assert "01-one: 1 score is missing (Boom: out of memory): margin of one. The step is kept" in " ".join(
        shown.split()
    )
    assert f"error: {bot}: 1 score could not be measured: 01-one: margin of one (Boom: out of memory)" in shown
    code, shown = lifealign("status", bot)
    assert code == 0 and "01-one: one (8 pairs, 1 held out)" in shown
    assert "missing: one after 01-one (Boom: out of memory); `lifealign evaluate` measures" in shown
    code, shown = lifealign("learn", bot, train, "--test", test)
    assert code == 0 and "already learnt from this data in 01-one; nothing to do" in shown
    with broken(BROKEN["margins"][0]):
        code, shown = lifealign("evaluate", bot)
    assert code == 1 and "01-one: margin of one (Boom: out of memory). What was learnt is kept" in shown
    code, shown = lifealign("evaluate", bot)
    assert code == 0 and "n = 1 per task" in shown and "missing" not in shown
