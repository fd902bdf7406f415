"""The report of several runs: methods side by side with their spread over seeds, and the tables of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lifealign import storage
from lifealign.errors import ConfigError
from lifealign.evaluation.bootstrap import cell_statistic
from lifealign.evaluation.metrics import METRICS
from lifealign.manifest import MANIFEST
from lifealign.methods import METHODS
from lifealign.report.comparison import compare_results
from lifealign.report.comparison_tables import captions, tables
from lifealign.report.page.charts import DotPlot, dot_plot
from lifealign.report.page.render import render
from lifealign.report.terminal import number_text

STATISTICS = {"last": "Last: mean over the tasks, now", "backward_transfer": "Backward transfer"}

Run = Mapping[str, Any]
"""A result file: what ``lifealign run`` and ``lifealign compare`` write."""


def load_run(path: Path) -> dict[str, Any]:
    """Reads a run: the directory of a life, or a result file.

    A run that no comparison has named gets its method's name for a label and its tasks for an order.

    Raises:
        ConfigError: If the path is neither.
        LifeError: If the life or the file is damaged.
    """
    if (path / MANIFEST).is_file():
        from lifealign.experiment import result_of
        from lifealign.life import Life

        result = result_of(Life.open(path))
    elif path.is_file():
        result = storage.read_json(path)
    else:
        what = "a directory without life.json" if path.is_dir() else "nothing"
        raise ConfigError(f"{path}: found {what}, expected a life or a result file")
    needed = {"method", "settings", "scores", "outcomes", "one_model", "cost", "steps", "base"}
    if not isinstance(result, dict) or not needed <= result.keys():
        missing = sorted(needed - result.keys()) if isinstance(result, dict) else []
        found = f"a file without {', '.join(missing)}" if missing else "something else"
        raise ConfigError(f"{path}: found {found}, expected a result file of `lifealign run` or `lifealign compare`")
    method = METHODS[result["method"]].title if result["method"] in METHODS else str(result["method"])
    order = ", ".join(task["name"] for step in result["steps"] for task in step["tasks"])
    return {"label": method, "order": order} | result


def runs_page(runs: Sequence[Run], against: str | None = None) -> str:
    """The report of several runs as one HTML file that needs nothing else; the same runs give the same bytes.

    Args:
        runs: Results, as :func:`load_run` reads them.
        against: Label of the method that the others are compared with, or None for no differences.

    Raises:
        ConfigError: If the runs do not belong together, or nothing was measured.
    """
    comparison = compare_results(runs, against)
    if not any(order.metrics for order in comparison.orders):
        raise ConfigError("found no scores in any of the runs, expected some; `lifealign evaluate` measures them")
    orders = []
    for order in comparison.orders:
        here = [run for run in runs if run["order"] == order.order]
        orders.append(
            {
                "name": order.order,
                "metrics": [
                    {
                        "key": table.metric,
                        "short": METRICS[table.metric].short,
                        "label": METRICS[table.metric].label,
                        "unit": {"share": "per cent", "nats": "nats", "points": "points"}[METRICS[table.metric].unit],
                        "plots": [
                            {
                                "name": name,
                                "plot": _plot(here, [row.label for row in table.rows[1:]], table.metric, key),
                            }
                            for key, name in STATISTICS.items()
                        ],
                    }
                    for table in order.metrics
                ],
            }
        )
    return render(
        "runs.html.j2",
        title="Runs side by side",
        labels=list(dict.fromkeys(run["label"] for run in runs)),
        runs=len(runs),
        seeds=comparison.seeds,
        bases=list(dict.fromkeys(run["base"]["model_name_or_path"] for run in runs)),
        orders=orders,
        tables=tables(comparison),
        captions=captions(comparison),
    )


def _plot(runs: Iterable[Run], labels: Sequence[str], metric: str, statistic: str) -> DotPlot | None:
    """A row per method: every seed, mean and standard deviation; None where no method has the statistic."""
    found: dict[str, list[float]] = {label: [] for label in labels}
    for run in runs:
        value = cell_statistic(run, metric, statistic) if metric in run["scores"] else None
        if value is not None:
            found[run["label"]].append(value)
    if not any(found.values()):
        return None
    factor = 100 if METRICS[metric].unit == "share" else 1
    signed = statistic == "backward_transfer"
    rows = {}
    for label, values in found.items():
        mean = fmean(values) if values else None
        deviation = stdev(values) if len(values) > 1 else None
        text = number_text(metric, mean, signed=signed) if mean is not None else "no such number"
        if deviation is not None:
            text += f" ± {number_text(metric, deviation)}"
        rows[label] = (
            [factor * value for value in values],
            None if mean is None else factor * mean,
            None if deviation is None else factor * deviation,
            text,
        )
    return dot_plot(rows)
