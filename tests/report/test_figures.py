"""Figures for papers: the files, the numbers in them, holes that are no zeros, labels that do not overlap."""

import builtins
import json
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lifealign.errors import ConfigError
from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.report.comparison import compare_results
from lifealign.report.figures import comparison_figures, life_figures, write_figures

RESULTS = sorted((Path(__file__).parents[2] / "results" / "support_desk_three_rules").glob("*.json"))
STEPS = ["01-brief", "02-greet"]
MATRIX = ScoreMatrix(
    "adherence", True, ["brief", "greet"], {"brief": 0, "greet": 1}, [{"brief": 0.83}, {"greet": 0.41}], {"brief": 0.07}
)


def texts(path: Path) -> list[str]:
    return [text for element in ElementTree.parse(path).iter() if (text := (element.text or "").strip())]


def overlapping(figure: Any) -> list[tuple[str, str]]:
    """Pairs of visible texts of one figure whose boxes overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [
        (label.get_text(), label.get_window_extent(canvas.get_renderer()))
        for axis in figure.axes
        for label in (
            *axis.get_yticklabels(),
            *(axis.get_xticklabels() if axis.get_xticklabels()[0].get_rotation() == 0 else ()),
            *axis.texts,
        )
        if label.get_text() and label.get_visible()
    ]
    return [(one, other) for (one, a), (other, b) in combinations(found, 2) if a.overlaps(b)]


def test_a_life_gives_a_matrix_and_lines_as_svg_and_png_always_the_same(tmp_path: Path) -> None:
    first = write_figures(tmp_path / "a", life_figures({"adherence": MATRIX}, STEPS))
    second = write_figures(tmp_path / "b", life_figures({"adherence": MATRIX}, STEPS))
    names = [f"{stem}-adherence.{ending}" for stem in ("matrix", "over-time") for ending in ("svg", "png")]
    assert [path.name for path in first] == names
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert (tmp_path / "a" / names[1]).read_bytes().startswith(b"\x89PNG")


def test_numbers_are_text_and_a_hole_is_marked_and_no_zero(tmp_path: Path) -> None:
    paths = write_figures(tmp_path, life_figures({"adherence": MATRIX}, STEPS))
    shown = texts(paths[0])
    assert {"83 %", "41 %", "7 %", "brief", "after 02-greet"} <= set(shown)
    assert shown.count("missing") == 2 and "0 %" not in shown  # the base on greet, and brief after the second step
    lines = life_figures({"adherence": MATRIX}, STEPS)["over-time-adherence"].axes[0].lines
    assert [line.get_ydata()[0] for line in lines] == [83.0, 41.0] and lines[0].get_ydata()[1] != lines[0].get_ydata()[
        1
    ]


def test_one_task_and_many_tasks_fit() -> None:
    one = ScoreMatrix("margin", True, ["a"], {"a": 0}, [{"a": 1.5}], {"a": 0.0})
    names = [f"a-long-task-name-{number}" for number in range(12)]
    many = ScoreMatrix(
        "bleu",
        True,
        names,
        {name: n for n, name in enumerate(names)},
        [dict.fromkeys(names[: n + 1], 50.0 + n) for n in range(12)],
        {},
    )
    for matrix in (one, many):
        steps = [f"{n + 1:02d}-{task}" for n, task in enumerate(matrix.tasks)]
        figure = life_figures({matrix.metric: matrix}, steps)[f"matrix-{matrix.metric}"]
        assert overlapping(figure) == []


def test_methods_stand_side_by_side_with_their_spread(tmp_path: Path) -> None:
    comparison = compare_results([json.loads(path.read_text()) for path in RESULTS], "ER")
    figures = comparison_figures(comparison)
    assert list(figures) == ["methods-adherence", "methods-preference_accuracy", "methods-margin"]
    figure = figures["methods-adherence"]
    assert overlapping(figure) == []
    last, backward = figure.axes
    rows = {row.label: row for row in comparison.orders[0].metrics[0].rows if row.seeds is not None}
    assert [label.get_text() for label in last.get_yticklabels()] == list(rows)
    assert len(last.containers) == len(rows) and len(backward.containers) == len(rows) - 2  # MTL and STL have none
    (path, _) = write_figures(tmp_path, {"methods-adherence": figure})
    assert "Backward transfer, adherence (per cent)" in texts(path)


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'lifealign\[plot\]'"):
        life_figures({"adherence": MATRIX}, STEPS)
