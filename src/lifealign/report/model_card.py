"""The model card: the README.md beside every version's adapter, for whoever meets the adapter without its life."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import METRICS
from lifealign.methods.base import Method
from lifealign.report.terminal import general_line, number_text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PLAIN = re.compile(r"([\\`*_\[\]<>|#~$])")
"""Characters that mean something in Markdown."""


@dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Attributes:
        version: Name of the version, ``02-tone``.
        base: The base model: hub id or path.
        revision: Its revision, if one was asked for.
        fingerprint: Content hash of its weights.
        embedded: Whether its weights are those of the embedded package, which are quantised.
        method: The method, with its options.
        is_adapter: Whether the version is an adapter that PEFT loads.
        steps: Names of the steps so far, this one last.
        tasks: Per task in order: ``name``, ``step``, ``train_pairs``, ``test_pairs``.
        matrices: Score matrices by metric.
        general: Figures on general text, or None.
        settings: The resolved settings.
        environment: Versions of libraries.
        license: Licence of the adapter, as the hub names licences, or None where nobody said.
    """

    version: str
    base: str
    revision: str | None
    fingerprint: str
    embedded: bool
    method: Method
    is_adapter: bool
    steps: Sequence[str]
    tasks: Sequence[Mapping[str, Any]]
    matrices: Mapping[str, ScoreMatrix]
    general: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    license: str | None


def model_card(facts: CardFacts) -> str:
    """A model card in Markdown with the front matter that the Hugging Face hub reads.

    The same facts give the same text: no clock, and of a local base model no path but its last part.
    """
    on_hub = HUB_ID.fullmatch(facts.base) is not None
    base = facts.base if on_hub else Path(facts.base).name
    tags = ["lifealign", "lifelong-alignment", "dpo", *(["lora"] if facts.is_adapter else [])]
    front: dict[str, Any] = {"base_model": base} if on_hub else {}
    front |= {"library_name": "peft" if facts.is_adapter else "lifealign", "license": facts.license or "unknown"}
    front |= {"pipeline_tag": "text-generation", "tags": tags}
    settings = dict(facts.settings) | {"model": dict(facts.settings["model"]) | {"model_name_or_path": base}}
    settings["evaluation"] = {
        key: value for key, value in facts.settings["evaluation"].items() if key != "general_text"
    }
    card: str = _template().render(
        facts=facts,
        base=base,
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        tables=[_table(matrix, facts.steps) for matrix in facts.matrices.values()],
        general=None if facts.general is None else general_line(facts.general),
        settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip(),
        options=facts.method.model_dump(mode="json"),
    )
    return card


def _table(matrix: ScoreMatrix, steps: Sequence[str]) -> dict[str, Any]:
    """A score matrix as rows of text, what was just learnt in bold, and its summary."""

    def text(value: float | None, *, bold: bool = False) -> str:
        shown = number_text(matrix.metric, value)
        return f"**{shown}**" if bold and value is not None else shown

    rows = [["base model", *(text(matrix.base.get(task)) for task in matrix.tasks)]]
    for step, (name, row) in enumerate(zip(steps, matrix.rows, strict=True)):
        cells = [
            text(row.get(task), bold=matrix.learnt_at[task] == step) if step >= matrix.learnt_at[task] else ""
            for task in matrix.tasks
        ]
        rows.append([name, *cells])
    numbers = matrix.summary()
    return {
        "label": METRICS[matrix.metric].label,
        "direction": "higher is better" if matrix.higher_is_better else "lower is better",
        "header": ["after", *matrix.tasks],
        "rows": rows,
        "last": text(numbers["last"]),
        "backward": number_text(matrix.metric, numbers["backward_transfer"], signed=True),
        "forgetting": text(numbers["forgetting"]),
    }


def plain(value: object) -> str:
    r"""Text that Markdown shows as it is.

    Example:
        >>> plain("a_b|c*")
        'a\\_b\\|c\\*'
    """
    return PLAIN.sub(r"\\\1", str(value)).replace("\n", " ")


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template("model_card.md.j2")
