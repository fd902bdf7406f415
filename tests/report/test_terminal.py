"""Tables on the terminal: shares in per cent, nothing where nothing was measured, text of others shown as it is."""

from rich.console import Console, RenderableType
from rich.text import Text

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.report.terminal import SUMMARY, answers_table, comparison_table, matrix_table, summary_line

MATRIX = ScoreMatrix(
    "adherence",
    True,
    ["brief", "greet"],
    {"brief": 0, "greet": 1},
    [{"brief": 0.9}, {"brief": 0.5, "greet": 0.8}],
    {"brief": 0.25, "greet": 0.0},
)


def lines(renderable: RenderableType, width: int = 160) -> list[str]:
    """What a plain terminal shows, blank lines and spaces at the ends left out."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return [line.strip() for line in capture.get().splitlines() if line.strip()]


def cells(line: str) -> list[str]:
    return [cell for cell in line.replace(" %", "%").split("  ") if cell.strip()]


def test_every_number_of_the_summary_has_a_label() -> None:
    assert {*SUMMARY, "base"} == MATRIX.summary().keys()


def test_a_matrix_has_the_base_first_and_a_row_per_step() -> None:
    header, _rule, *rows = lines(matrix_table(MATRIX, ["01-brief", "02-greet"]))
    assert header.split() == ["after", "brief", "greet", "mean"]
    # mean of the base 12.5, which Python's format rounds to the even 12
    assert [row.replace(" %", "%").split() for row in rows] == [
        ["base", "model", "25%", "0%", "12%"],
        ["01-brief", "90%", "90%"],
        ["02-greet", "50%", "80%", "65%"],
    ]


def test_a_missing_score_is_marked_and_has_no_mean_beside_it() -> None:
    gappy = ScoreMatrix("judge", True, ["a", "b"], {"a": 0, "b": 1}, [{}, {"b": 40.0}], {"b": 20.0})
    _, _, *rows = lines(matrix_table(gappy, ["01-a", "02-b"]))
    assert [row.split() for row in rows] == [
        ["base", "model", "-", "20.0", "-"],
        ["01-a", "-", "-"],
        ["02-b", "-", "40.0", "-"],
    ]
    assert "last -" in summary_line(gappy)


def test_a_score_is_bold_where_the_task_was_new() -> None:
    table = matrix_table(MATRIX, ["01-brief", "02-greet"])
    assert [[str(cell) for cell in column.cells] for column in table.columns] == [
        ["base model", "01-brief", "02-greet"],
        ["25 %", "90 %", "50 %"],
        ["0 %", "", "80 %"],
        ["12 %", "90 %", "65 %"],
    ]
    cells = [cell for column in table.columns for cell in column.cells if isinstance(cell, Text)]
    assert [str(cell) for cell in cells if cell.style == "bold"] == ["90 %", "80 %"]


def test_a_step_that_scored_nothing_is_an_empty_row_and_not_zeros() -> None:
    matrix = ScoreMatrix("margin", True, ["b"], {"b": 1}, [{}, {"b": 0.5}], {"b": 0.0})
    rows = lines(matrix_table(matrix, ["01-a", "02-b"]))[-2:]
    assert [row.split() for row in rows] == [["01-a", "-"], ["02-b", "0.50", "0.50"]]


def test_the_summary_is_one_line_with_a_sign_where_the_direction_matters() -> None:
    # last (50+80)/2, average (90+65)/2, learned (90+80)/2, backward transfer 50-90, forgetting 90-50
    assert summary_line(MATRIX) == (
        "last 65 %   average 78 %   learned 85 %   backward transfer -40 %   forgetting 40 %"
    )
    alone = ScoreMatrix("margin", True, ["a"], {"a": 0}, [{"a": 1.5}])
    assert summary_line(alone) == "last 1.50   average 1.50   learned 1.50   backward transfer -   forgetting -"


def test_methods_side_by_side_end_with_what_a_stream_is_judged_by() -> None:
    rows_of_better = [{"brief": 0.9}, {"brief": 0.9, "greet": 0.8}]
    better = ScoreMatrix("adherence", True, MATRIX.tasks, MATRIX.learnt_at, rows_of_better)
    header, _rule, *rows = lines(comparison_table({"SeqFT": MATRIX, "LifeAlign": better}))
    assert " ".join(header.split()) == "method brief greet last learned backward"
    assert [row.replace(" %", "%").split() for row in rows] == [
        ["base", "model", "25%", "0%", "12%"],
        ["SeqFT", "50%", "80%", "65%", "85%", "-40%"],
        ["LifeAlign", "90%", "80%", "85%", "85%", "+0%"],
    ]


def test_answers_and_rules_are_shown_as_they_are_not_as_markup() -> None:
    table = answers_table(
        {"SeqFT": ("It is [red]late[/red].", {"brief": True, "greet": False}), "Life[Align]": ("", {"brief": False})},
    )
    text = "\n".join(lines(table))
    assert "It is [red]late[/red]." in text
    assert "(empty)" in text and "Life[Align]" in text
    assert "yes brief" in text and text.count("no  ") == 2


def test_an_answer_cannot_command_the_terminal() -> None:
    answer = "\x1b[2Jcleared\rback \x07\x9b31m \u202egnp.exe"
    table = answers_table({"Se\x1b[31mqFT": (answer, {"br\x08ief": True})})
    console = Console(width=160, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(table)
    shown = capture.get()
    assert r"\x1b[2Jcleared\rback \x07\x9b31m \u202egnp.exe" in shown
    assert r"Se\x1b[31mqFT" in shown and r"br\x08ief" in shown
    assert not set(shown) & set("\x1b\r\x07\x08\x9b\u202e")
