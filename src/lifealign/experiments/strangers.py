"""Which results can stand in one table: those on the same base model, data and metrics, each cell once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lifealign.errors import ConfigError
from lifealign.evaluation.metrics import METRICS
from lifealign.experiments.result import RunResult


def refuse_strangers(results: Sequence[RunResult]) -> None:
    """Refuses results that cannot be in one table.

    Raises:
        ConfigError: If two results have the same label, order and seed, or one differs from those before it in base
            model, general text, metrics, tasks or numbers of held-out examples.
    """
    met: dict[tuple[str, ...], tuple[Any, str]] = {}
    cells = set()
    for result in results:
        place = f"label {result.label!r}, order {result.order!r}, seed {result.seed}"
        if place in cells:
            raise ConfigError(f"{place}: found two results, expected one; leave one of the files out")
        cells.add(place)
        for what, within, found in _traits(result):
            # The first result with a trait decides; later ones have to agree.
            expected, other = met.setdefault((what, within), (found, place))
            if found != expected:
                raise ConfigError(
                    f"{place}: found {what} {found}, expected {expected} as in {other}; "
                    "results of one comparison share base model, data and metrics, so run this one again"
                )


def _traits(result: RunResult) -> Iterator[tuple[str, str, Any]]:
    """What all results must share: its name, the order within which it must be the same (empty for all), its value."""
    order = result.order
    yield "the base model", "", result.base.fingerprint
    if result.general_text and (general := result.general_text[-1]) is not None:
        yield "the general text", "", f"{general.text} ({general.tokens} tokens)"  # it may be cut by max_length
    together = [metric for metric in result.scores if METRICS[metric].measured_on == "rules"]
    yield "the metrics", order, ", ".join(sorted(set(result.scores) - set(together)))
    if result.one_model:  # with one model per task, no model keeps rules together
        yield "the metrics of rules", order, ", ".join(together) or "none"
    for metric, matrix in result.scores.items():
        yield f"the tasks ({metric}, sorted)", order, ", ".join(sorted(matrix.tasks))
        if len(matrix.rows) > 1:  # in a single step, tasks have no order
            yield f"the tasks ({metric})", order, ", ".join(matrix.tasks)
        for row in result.outcomes.get(metric, ()):
            for task, outcomes in row.items():
                yield f"the number of held-out examples of task {task!r} ({metric})", "", len(outcomes)
