"""What each step has cost the tasks before it, with the prompts that flipped: for a life's page and for a refusal's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lifealign.life.disk.gate_files import (
    VERDICTS,
    Attempt,
    Flipped,
    GateSet,
    Refusal,
    flipped_prompts,
    gate_answers_of,
    gate_sets_of,
    retention_of,
)
from lifealign.life.life import Life
from lifealign.report.page.answers import changes
from lifealign.report.page.render import minus, render

MOST_FLIPPED = 12
"""Maximum number of lost prompts of a task that a page shows."""


def refusal_page(refusal: Refusal) -> str:
    """Why a step was refused, as one HTML file that needs nothing else."""
    return render(
        "refusal.html.j2",
        title=f"{refusal.step}: refused",
        step=refusal.step,
        attempts=[_attempt(attempt) for attempt in refusal.retention.attempts],
        unmeasured=refusal.retention.unmeasured,
        flipped=_shown(refusal.flipped),
        confidence=refusal.retention.confidence,
        decision=refusal.retention.decision,
        most=MOST_FLIPPED,
    )


def retention_panels(life: Life) -> list[dict[str, Any]]:
    """One panel for each step that had something to lose."""
    panels: list[dict[str, Any]] = []
    gates: list[GateSet] = []
    for version in life.steps:
        evidence = retention_of(life.directory, version)
        if evidence is not None and (evidence.losses or evidence.unmeasured):
            answers = [row.model_dump() for row in gate_answers_of(life.directory, version)]
            panels.append(
                {
                    "step": version.name,
                    "verdict": VERDICTS.get(evidence.verdict, "not measured"),
                    "forced": evidence.forced,
                    "scale": f"{evidence.scale:g}",
                    "decision": evidence.decision,
                    "attempts": [_attempt(attempt) for attempt in evidence.attempts],
                    "unmeasured": evidence.unmeasured,
                    "flipped": _shown(flipped_prompts(life.directory, gates, evidence, answers)),
                }
            )
        gates += gate_sets_of(life.directory, version)
    return panels


def _attempt(attempt: Attempt) -> dict[str, Any]:
    rows = [
        {
            "task": task,
            "prompts": loss.prompts,
            "lost": len(loss.lost),
            "gained": len(loss.gained),
            "bound": f"{100 * max(0.0, loss.bound):.1f} %",
            "allowed": f"{100 * loss.max_loss:.3g} %",
            "kept": loss.kept,
        }
        for task, loss in attempt.losses.items()
    ]
    return {"scale": f"{attempt.scale:g}", "rows": rows}


def _shown(flipped: Mapping[str, Sequence[Flipped]]) -> list[dict[str, Any]]:
    """The first lost prompts of each task; answers with what has changed marked, or margins."""
    return [
        {
            "task": task,
            "number": len(prompts),
            "prompts": [
                {
                    "prompt": one.prompt[-1].content,
                    "before": _text(one.before),
                    "pieces": changes(one.before, one.after)
                    if isinstance(one.before, str) and isinstance(one.after, str)
                    else [],
                    "after": _text(one.after),
                }
                for one in prompts[:MOST_FLIPPED]
            ],
        }
        for task, prompts in flipped.items()
    ]


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else minus(f"margin {value:+.2f} nats")
