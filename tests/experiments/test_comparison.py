"""A comparison brought together and shown: means and differences by hand, gaps said, every format readable."""

import csv
import io
import re
from collections.abc import Sequence

import pytest
from rich.console import Console
from tests.experiments.test_bootstrap import Outcomes, result

from lifealign.errors import ConfigError
from lifealign.evaluation.metrics import METRICS
from lifealign.experiments.bootstrap import STATISTICS
from lifealign.experiments.comparison import COSTS, Comparison, Estimate, Row
from lifealign.experiments.result import Cost, RunResult, StepRetention
from lifealign.experiments.summary import compare_results
from lifealign.report.table_formats import csv_text, latex, markdown, terminal
from lifealign.report.tables import COLUMNS, COST_COLUMNS, TextTable, tables


def rows(learnt: float, last: float, new: float) -> Outcomes:
    """A stream of a and b on ten examples each: a right after it was learnt, a at the end, b."""

    def share(of_ten: float) -> list[float]:
        right = round(10 * of_ten)
        return [1.0] * right + [0.0] * (10 - right)

    return [{"a": share(learnt)}, {"a": share(last), "b": share(new)}]


def small() -> list[RunResult]:
    """Three methods on two seeds; ER is without the second. Base model: 25 per cent."""
    return [
        result("SeqFT", 1, adherence=rows(0.9, 0.3, 0.9)),
        result("SeqFT", 2, adherence=rows(0.9, 0.5, 0.9)),
        result("ER", 1, adherence=rows(0.9, 0.7, 0.5)),
        result("STL", 1, one_model=False, adherence=rows(0.8, 0.8, 0.6)),
        result("STL", 2, one_model=False, adherence=rows(0.8, 0.8, 0.6)),
    ]


def row(comparison: Comparison, label: str, order: int = 0, metric: int = 0) -> Row:
    return next(row for row in comparison.orders[order].metrics[metric].rows if row.label == label)


def shown(comparison: Comparison, width: int = 80) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        for renderable in terminal(comparison):
            console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def table(comparison: Comparison, title: str) -> TextTable:
    return next(table for table in tables(comparison) if title in table.title)


def of_rows(table: TextTable) -> dict[str, list[str]]:
    return {label: [cell.strip() for cell in cells] for label, *cells in table.rows}


def test_means_and_deviations_over_seeds_by_hand() -> None:
    seqft = row(compare_results(small(), None), "SeqFT")
    # last: (0.3 + 0.9) / 2 and (0.5 + 0.9) / 2; average: (0.9 + 0.6) / 2 and (0.9 + 0.7) / 2
    expected = {"last": (0.65, 0.05), "average": (0.775, 0.025), "learned": (0.9, 0), "backward_transfer": (-0.5, 0.1)}
    for name, (mean, half_gap) in expected.items():
        # two values that far from their mean have a sample deviation of sqrt(2) times that
        assert seqft.statistics[name] == (pytest.approx(mean), pytest.approx(half_gap * 2**0.5)), name
    assert seqft.seeds == (1, 2)
    assert seqft.tasks == {
        "a": (pytest.approx(0.4), pytest.approx(0.1 * 2**0.5)),
        "b": (pytest.approx(0.9), pytest.approx(0)),
    }


def test_the_base_model_is_the_first_row_and_has_scores_only() -> None:
    first = compare_results(small(), "SeqFT").orders[0].metrics[0].rows[0]
    assert first.label == "base model" and first.seeds is None and first.differences == {}
    assert first.statistics == {
        "last": Estimate(0.25, None), "average": None, "learned": None, "backward_transfer": None
    }  # fmt: skip
    assert first.tasks == {"a": Estimate(0.25, None), "b": Estimate(0.25, None)}


def test_methods_come_in_the_order_of_their_first_result() -> None:
    results = small()
    labels = [row.label for row in compare_results([*results[2:], *results[:2]], None).orders[0].metrics[0].rows]
    assert labels == ["base model", "ER", "STL", "SeqFT"]


def test_differences_are_paired_and_only_against_another() -> None:
    comparison = compare_results(small(), "SeqFT")
    last, backward = (row(comparison, "ER").differences[name] for name in ("last", "backward_transfer"))
    # Seed 1 only: (0.7 + 0.5) / 2 - (0.3 + 0.9) / 2, and -0.2 - -0.6
    assert last is not None and (last.difference, last.cells) == (pytest.approx(0.0), 1)
    assert backward is not None and (backward.difference, backward.cells) == (pytest.approx(0.4), 1)
    assert backward.excludes_zero and not last.excludes_zero
    assert row(comparison, "SeqFT").differences == {}
    assert row(comparison, "STL").differences["backward_transfer"] is None
    assert all(row.differences == {} for row in compare_results(small(), None).orders[0].metrics[0].rows)


def test_metrics_come_in_their_usual_order_whatever_that_of_the_file() -> None:
    names = list(METRICS)
    one = result(**{name: [{"a": [1.0]}] for name in reversed(names)})
    assert [table.metric for table in compare_results([one], None).orders[0].metrics] == names


def test_orders_are_blocks_of_their_own() -> None:
    turned: Outcomes = [{"b": [1.0] * 10}, {"b": [0.0] * 10, "a": [1.0] * 10}]
    results = [*small(), result("SeqFT", 1, order="turned", adherence=turned)]
    comparison = compare_results(results, "SeqFT")
    assert [order.order for order in comparison.orders] == ["given", "turned"]
    assert [order.metrics[0].tasks for order in comparison.orders] == [("a", "b"), ("b", "a")]
    assert row(comparison, "SeqFT", order=1).statistics["backward_transfer"] == Estimate(-1.0, None)
    # The others have nothing there, and say so.
    absent = row(comparison, "STL", order=1)
    assert absent.seeds == () and set(absent.statistics.values()) == {None}
    assert comparison.orders[1].missing == {"SeqFT": (2,), "ER": (1, 2), "STL": (1, 2)}
    notes = table(comparison, "turned: costs").notes
    assert notes[0] == "Note: SeqFT has 1 of 2 seeds here; no result of seed 2."
    assert notes[2] == "Note: STL has 0 of 2 seeds here; no result of seeds 1, 2."


def test_costs_are_means_over_seeds_in_the_units_of_the_table() -> None:
    results = small()
    cost = Cost(
        seconds=60.0,
        seconds_with_scoring=70.0,
        state_bytes=0,
        adapter_bytes=3_000_000,
        peak_memory_bytes=4_000_000_000,
    )
    results[0] = results[0].model_copy(update={"cost": cost})
    costs = {cost.label: cost for cost in compare_results(results, None).orders[0].costs}
    # the other seed: 90 s, 2.5 MB, 10 MB, no peak
    assert costs["SeqFT"].figures == {"minutes": 1.25, "state_mb": 1.25, "adapter_mb": 6.5, "peak_memory_gb": 4.0}
    assert costs["ER"].figures["peak_memory_gb"] is None and costs["ER"].seeds == (1,)


def gated(run: RunResult, *steps: tuple[bool, float] | None) -> RunResult:
    """A run whose steps have cost earlier tasks something: whether they are kept, and the worst loss."""
    found = [None if step is None else StepRetention(kept=step[0], worst=step[1]) for step in steps]
    own = [step.model_copy(update={"retention": one}) for step, one in zip(run.steps, found, strict=True)]
    return run.model_copy(update={"steps": own})


def test_what_steps_cost_is_a_table_by_hand() -> None:
    """Of ER's two decisions one is refused, which lost 30 %; the other lost 5 %. SeqFT is refused every time."""
    seqft, again, er, *others = small()
    comparison = compare_results(
        [
            gated(seqft, None, (False, 0.8)),
            gated(again, None, (False, 0.6)),
            gated(er, None, (True, 0.05)),
            gated(result("ER", 2, adherence=rows(0.9, 0.7, 0.5)), None, (False, 0.3)),
            *others,
        ],
        None,
    )
    found = of_rows(table(comparison, "what steps cost"))
    assert found == {
        "SeqFT": ["2", "100 % of 2", "80.0 %", "-"],
        "ER": ["2", "50 % of 2", "30.0 %", "5.0 %"],
    }
    lines = list(csv.DictReader(io.StringIO(csv_text(comparison))))
    worst = [line for line in lines if line["metric"] == "retention" and line["label"] == "ER"]
    assert [(line["statistic"], line["mean"]) for line in worst] == [
        ("refused", "0.5"),
        ("worst_loss", "0.3"),
        ("worst_accepted_loss", "0.05"),
    ]
    assert not [one for one in tables(compare_results(small(), None)) if "what steps cost" in one.title]


def test_a_result_without_a_gate_is_written_as_before() -> None:
    assert "retention" not in small()[0].model_dump(mode="json")["steps"][0]
    with_gate = gated(small()[0], None, (True, 0.0)).model_dump(mode="json")["steps"]
    assert "retention" not in with_gate[0] and with_gate[1]["retention"] == {"kept": True, "worst": 0.0}


def test_every_statistic_and_every_cost_has_a_column() -> None:
    assert set(COLUMNS) == set(STATISTICS)
    assert COST_COLUMNS.keys() == COSTS.keys()


A = {"a": [1.0, 0.0]}
B = {"b": [1.0, 0.0]}
FIRST = result("ER", 1, adherence=[A, A | B])


def test_a_method_with_a_model_per_task_has_no_number_for_rules_kept_together() -> None:
    kept = {"adherence": rows(0.9, 0.7, 0.5), "joint_adherence": rows(0.9, 0.3, 0.5)}
    apart = result("STL", 1, one_model=False, adherence=rows(0.8, 0.8, 0.6))
    for results in ([result("ER", 1, **kept), apart], [apart, result("ER", 1, **kept)]):
        comparison = compare_results(results, "ER")
        assert [table.metric for table in comparison.orders[0].metrics] == ["adherence", "joint_adherence"]
        assert row(comparison, "ER", metric=1).statistics["last"] == Estimate(0.4, None)
        nothing = row(comparison, "STL", metric=1)
        assert set(nothing.statistics.values()) == {None} and nothing.tasks == {"a": None, "b": None}
        assert set(nothing.differences.values()) == {None} and comparison.orders[0].metrics[1].holes == ()
        assert of_rows(table(comparison, METRICS["joint_adherence"].label_without_unit))["STL"]
    with pytest.raises(ConfigError, match="found the metrics of rules none, expected joint_adherence as in"):
        compare_results([result("ER", 1, **kept), result("FPO", 1, adherence=kept["adherence"])], None)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (FIRST, "label 'ER', order 'given', seed 1: found two results, expected one; leave one of the files out"),
        (
            result("FPO", 2, adherence=[A, A | {"c": [1.0, 0.0]}]),
            "label 'FPO', order 'given', seed 2: found the tasks (adherence, sorted) a, c, expected a, b "
            "as in label 'ER', order 'given', seed 1; ",
        ),
        (
            result("FPO", 2, adherence=[B, B | A]),
            "label 'FPO', order 'given', seed 2: found the tasks (adherence) b, a, expected a, b as in label 'ER'",
        ),
        (
            result("FPO", 2, adherence=[A, A | B], margin=[A, A | B]),
            "label 'FPO', order 'given', seed 2: found the metrics adherence, margin, expected adherence as in",
        ),
        (
            result("FPO", 2, "turned", adherence=[B, B | {"a": [1.0]}]),
            "label 'FPO', order 'turned', seed 2: found the number of held-out examples of task 'a' (adherence) 1, "
            "expected 2 as in label 'ER', order 'given', seed 1; ",
        ),
        (
            result("FPO", 2, adherence=[A, {"a": [1.0]} | B]),
            "label 'FPO', order 'given', seed 2: found the number of held-out examples of task 'a' (adherence) 1, ",
        ),
        (
            result("FPO", 2, adherence=[A, A | B]).model_copy(
                update={"base": result(adherence=[A]).base.model_copy(update={"fingerprint": "beef"})}
            ),
            "label 'FPO', order 'given', seed 2: found the base model beef, expected f00d as in",
        ),
    ],
)
def test_results_that_do_not_belong_together_are_refused(other: RunResult, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        compare_results([FIRST, other], None)


def test_what_may_differ_does() -> None:
    others = [
        result("ER", 2, adherence=[A, A | B]),
        result("ER", 1, "turned", adherence=[B, A | B]),
        result("FPO", 1, adherence=[A, A | B]),
        result("MTL", 1, adherence=[B | A]),  # in a single step, tasks have no order
        result("ER", 1, "short", adherence=[A]),
        result("ER", 1, "unchecked", margin=[{"c": [1.0]}]),  # an order may leave tasks out, and with them a metric
    ]
    given, turned, short, unchecked = compare_results([FIRST, *others], "FPO").orders
    assert [table.metric for table in given.metrics] == [table.metric for table in turned.metrics] == ["adherence"]
    assert short.metrics[0].tasks == ("a",)
    assert [table.metric for table in unchecked.metrics] == ["margin"]


def test_an_unknown_label_to_compare_against_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="against: found 'SeqTF', expected one of SeqFT, ER, STL; did you mean SeqFT"):
        compare_results(small(), "SeqTF")


def test_several_orders_are_compared_block_by_block() -> None:
    def cell(label: str, order: str, seed: int, right: int) -> RunResult:
        return result(label, seed, order=order, adherence=[{"a": [1.0] * right + [0.0] * (10 - right)}])

    places = [(order, seed) for order in ("one", "two", "three") for seed in (1, 2)]
    theirs = [cell("ER", *place, 2) for place in places]
    ours = [cell("Ours", *place, 3 + number) for number, place in enumerate(places)]  # .1 to .6 above
    comparison = compare_results([*theirs, *ours, cell("Few", "one", 1, 1)], "ER")
    found = table(comparison, "All orders: adherence, Last, difference from ER; percentage points, above 0 is better")
    assert found.header == ("method", "higher", "difference", "interval", "p", "Holm")
    assert of_rows(found) == {
        "Ours": ["6 of 6", "+35.0", "+10.0 to +60.0", "0.0312", "0.0625"],
        "Few": ["0 of 1", "-10.0", "too few blocks", "1", "1"],
    }
    of_all = {(row["label"], row["statistic"]): row for row in parsed(csv_text(comparison)) if row["order"] == "all"}
    assert float(of_all["Ours", "last"]["difference"]) == pytest.approx(0.35)
    assert (of_all["Ours", "last"]["seeds"], of_all["Few", "last"]["low"]) == ("6", "")
    assert float(of_all["Ours", "last_p"]["mean"]) == 2 / 64
    one_order = [one for one in (*theirs, *ours) if one.order == "one"]
    assert compare_results(one_order, "ER").blocks == ()
    assert compare_results([*theirs, *ours], None).blocks == ()


def test_no_results_are_refused() -> None:
    with pytest.raises(ConfigError, match="a comparison needs at least one result; run it first"):
        compare_results([], None)


def test_the_main_table_by_hand() -> None:
    main = table(compare_results(small(), "SeqFT"), "given: adherence (share")
    assert main.header == ("method", "seeds", "BWT", "Last", "AP", "Learn")
    assert main.title.endswith("; per cent, higher is better")
    assert of_rows(main) == {
        "base model": ["-", "-", "25.0", "-", "-"],
        "SeqFT": ["2", "-50.0 ± 14.1", "65.0 ± 7.1", "77.5 ± 3.5", "90.0 ± 0.0"],
        "ER": ["1", "-20.0", "60.0", "75.0", "70.0"],
        "STL": ["2", "-", "70.0 ± 0.0", "-", "70.0 ± 0.0"],
    }
    assert main.notes == ("Note: ER has 1 of 2 seeds here; no result of seed 2.",)


def test_tasks_learnt_together_have_dashes_for_what_only_a_stream_has() -> None:
    jointly = result("MTL", margin=[{"a": [0.5], "b": [1.0]}])
    main = table(compare_results([jointly], None), "given: mean margin on held-out pairs; nats, higher is better")
    assert of_rows(main)["MTL"] == ["1", "-", "0.75", "-", "0.75"]


def test_differences_are_shown_with_their_interval_and_a_mark() -> None:
    fixed = [{"a": [1.0] * 4}, {"a": [0.0] * 4, "b": [1.0] * 4}]
    better = [{"a": [1.5] * 4}, {"a": [1.0] * 4, "b": [1.5] * 4}]
    results = [result("SeqFT", margin=fixed), result("ER", margin=better), result("SeqFT again", margin=fixed)]
    found = table(compare_results(results, "SeqFT"), "difference from SeqFT; nats, above 0 is better")
    assert found.header == ("method", "pairs", "Last", "BWT")
    # last 1.25 - 0.5; backward transfer -0.5 - -1
    assert of_rows(found) == {
        "ER": ["1", "+0.75 [+0.75, +0.75] *", "+0.50 [+0.50, +0.50] *"],
        "SeqFT again": ["1", "+0.00 [+0.00, +0.00]", "+0.00 [+0.00, +0.00]"],
    }
    stl = table(compare_results(small(), "SeqFT"), "difference from SeqFT; percentage points")
    assert of_rows(stl)["STL"][-1] == "-"


def test_there_is_no_table_of_differences_where_there_is_nothing_to_compare_with() -> None:
    for results, against in ((small(), None), ([FIRST], "ER")):
        assert not any("difference" in table.title for table in tables(compare_results(results, against)))


def test_a_small_fall_that_rounds_to_zero_has_no_minus() -> None:
    results = [result("ER", margin=[{"a": [0.001]}, {"a": [0.0], "b": [-0.001]}])]
    cells = of_rows(tables(compare_results(results, None))[0])["ER"]
    assert cells == ["1", "+0.00", "0.00", "0.00", "0.00"]


def test_the_tasks_after_the_last_step_are_a_table() -> None:
    found = table(compare_results(small(), None), "adherence per task after the last step; per cent, higher is better")
    assert found.header == ("method", "a", "b")
    assert of_rows(found)["SeqFT"] == ["40.0 ± 14.1", "90.0 ± 0.0"]
    assert of_rows(found)["base model"] == ["25.0", "25.0"]


def test_where_lower_is_better_the_titles_say_so() -> None:
    results = [result(label, higher_is_better=False, margin=[A, A | B]) for label in ("ER", "SeqFT")]
    titles = [table.title for table in tables(compare_results(results, "ER"))]
    assert titles[0].endswith("nats, lower is better") and titles[2].endswith("nats, lower is better")
    assert titles[1].endswith("nats, below 0 is better for Last, above 0 for BWT")


def test_costs_are_a_table_per_order() -> None:
    found = table(compare_results(small(), None), "given: costs")
    assert found.header == ("method", "seeds", "minutes", "state MB", "adapter MB", "peak GB")
    assert of_rows(found)["SeqFT"] == ["2", "1.5", "2.5", "10.0", "-"]


def test_captions_say_what_the_columns_are_and_which_direction_is_better() -> None:
    comparison = compare_results(small(), "SeqFT")
    legend = " ".join("\n".join(shown(comparison)).split())
    for words in (
        "BWT (backward transfer): mean change",
        "AP: mean over steps",
        "±: sample standard deviation over seeds",
        "this method minus SeqFT",
        "95 % interval of a paired bootstrap over pairs and held-out examples (10,000 resamples)",
        "Not corrected for the number of comparisons",
        "Costs: means over seeds; lower is better.",
        "Note: ER has 1 of 2 seeds here",
    ):
        assert words in legend and words in " ".join(markdown(comparison).split()), words
        assert words.replace("±", r"$\pm$").replace("%", r"\%") in latex(comparison), words
    for text in ("\n".join(shown(wide())), markdown(wide())):
        assert text.count("AP: mean over steps") == text.count("Costs: means") == 1


def wide() -> Comparison:
    """Long labels, two-digit spreads and four tasks: as wide as real tables get."""
    tasks = ("brief", "greet", "order-number-2", "escalate")

    def outcomes(level: float) -> Outcomes:
        return [{task: [level * 10, -level] for task in tasks[: step + 1]} for step in range(len(tasks))]

    labels = ("SeqFT", "LifeAlign without FPO", "LifeAlign [bold]/x[/]")
    cells = [(label, seed) for label in labels for seed in (1, 2)]
    return compare_results(
        [result(label, seed, margin=outcomes(seed), adherence=outcomes(seed / 20)) for label, seed in cells], "SeqFT"
    )


def test_the_terminal_needs_80_columns_and_wraps_no_row() -> None:
    comparison = wide()
    lines = shown(comparison)
    assert max(map(len, lines)) <= 80
    for label in ("LifeAlign without FPO", "LifeAlign [bold]/x[/]"):
        # Of two metrics three tables each, and the costs, all on a line of their own
        found = [line.split(label)[1].split() for line in lines if label in line]
        assert [len(cells) for cells in found] == [5, 7, 4, 5, 7, 4, 5], found
    assert "…" not in "\n".join(lines)


def test_labels_are_never_cut_however_narrow_the_terminal() -> None:
    lines = shown(wide(), width=24)
    assert sum("LifeAlign without FPO" in line for line in lines) == 7


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_every_number_unrounded() -> None:
    results = [*small(), result('Odd, "label"\n', 1, adherence=rows(0.9, 0.9, 0.9))]
    comparison = compare_results(results, "SeqFT")
    lines = parsed(csv_text(comparison))
    # five rows of four statistics; four methods of four costs
    assert len(lines) == 5 * 4 + 4 * 4
    found = {(line["label"], line["statistic"]): line for line in lines}
    seqft = found["SeqFT", "backward_transfer"]
    estimate = row(comparison, "SeqFT").statistics["backward_transfer"]
    assert (float(seqft["mean"]), float(seqft["sd"])) == estimate
    assert (seqft["order"], seqft["metric"], seqft["seeds"], seqft["difference"]) == ("given", "adherence", "2", "")
    er, difference = found["ER", "backward_transfer"], row(comparison, "ER").differences["backward_transfer"]
    assert difference is not None
    assert [float(er[key]) for key in ("difference", "low", "high")] == [
        difference.difference, difference.low, difference.high
    ]  # fmt: skip
    assert er["sd"] == "" and found["ER", "learned"]["low"] == ""
    base = found["base model", "last"]
    assert (base["mean"], base["sd"], base["seeds"]) == ("0.25", "", "")
    assert found["STL", "average"]["mean"] == "" and found["STL", "backward_transfer"]["difference"] == ""
    assert found["ER", "minutes"]["metric"] == "cost" and found["ER", "minutes"]["mean"] == "1.5"
    assert found["ER", "peak_memory_gb"]["mean"] == ""
    assert ('Odd, "label"\n', "last") in found


def test_a_method_without_results_in_an_order_has_0_seeds_in_the_csv() -> None:
    results = [*small(), result("SeqFT", 1, order="other", adherence=rows(0.9, 0.9, 0.9))]
    lines = [line for line in parsed(csv_text(compare_results(results, None))) if line["order"] == "other"]
    assert {line["seeds"] for line in lines if line["label"] == "ER"} == {"0"}
    assert {line["mean"] for line in lines if line["label"] == "ER"} == {""}


def test_markdown_is_tables_with_as_many_cells_in_every_line() -> None:
    text = markdown(compare_results([*small(), result("a|b_*c*", 1, adherence=rows(0.9, 0.9, 0.9))], "SeqFT"))
    grids = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(grids) == 4
    for header, rule, *body in grids:
        cells = [len(re.findall(r"(?<!\\)\|", line)) for line in (header, rule, *body)]
        assert len(set(cells)) == 1 and rule.startswith("| --- | ---: |")
    assert "| SeqFT | 2 | -50.0 ± 14.1 | 65.0 ± 7.1 | 77.5 ± 3.5 | 90.0 ± 0.0 |" in text
    assert r"| a\|b\_\*c\* | 1 |" in text


SPECIAL = r"[A] & 50% of $x_1$ #2 {~^|<>\}"
ESCAPED = (
    r"{[}A] \& 50\% of \$x\_1\$ \#2 \{\textasciitilde{}\textasciicircum{}\textbar{}$<$$>$\textbackslash{}\}"
)  # fmt: skip


def test_latex_escapes_what_others_wrote_and_keeps_its_own() -> None:
    results = [*small(), result(SPECIAL, 1, adherence=rows(0.9, 0.9, 0.9))]
    text = latex(compare_results(results, SPECIAL))
    assert SPECIAL not in text
    assert f"\n{ESCAPED} & 1 & +0.0 & 90.0 & 90.0 & 90.0 \\\\\n" in text
    assert f"difference from {ESCAPED};" in text
    assert r"SeqFT & 2 & $-$50.0 $\pm$ 14.1 & 65.0 $\pm$ 7.1 & 77.5 $\pm$ 3.5 & 90.0 $\pm$ 0.0 \\" in text
    assert "±" not in text and "[-" not in text and "[+" not in text.replace("{[}+", "")


def test_latex_is_whole_tables() -> None:
    text = latex(wide())
    assert text.startswith(r"% needs \usepackage{booktabs}")
    floats = re.findall(r"\\begin\{table\}\n(.*?)\n\\end\{table\}", text, flags=re.DOTALL)
    assert len(floats) == 7
    for one in floats:
        columns = re.search(r"\\begin\{tabular\}\{(l(r+))\}", one)
        assert columns is not None
        body: Sequence[str] = [line for line in one.splitlines() if line.endswith(r"\\")]
        assert {line.count("&") for line in body} == {len(columns[2])}
        assert [rule for rule in re.findall(r"\\(top|mid|bottom)rule", one)] == ["top", "mid", "bottom"]
        assert r"\caption{" in one and r"\end{tabular}" in one
    assert "order-number-2" in text  # a hyphen of a name is no minus
