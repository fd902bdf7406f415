"""What the result of a run holds, and what has to fit together in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer, model_validator

from lifealign.errors import describe
from lifealign.evaluation.metrics import METRICS
from lifealign.life.disk.step_files import Figures, General, Outcomes
from lifealign.life.disk.typed_json import Count, Number, Record
from lifealign.settings.faults import Fault, Faults, nearest, shown

Scores = dict[str, Number]
"""Scores by task, in the metric's unit."""


class Summary(Record):
    """The statistics of continual learning, read from a score matrix, in the metric's unit.

    Each is a mean; None if there is nothing to average (one step has no backward transfer) or a score is missing.

    Attributes:
        last: Over the tasks after the last step.
        average: Over the steps, of the mean over the tasks seen by then.
        learned: Over the tasks, each right after it was learnt.
        backward_transfer: Change of the earlier tasks since each was learnt; negative means forgetting.
        forgetting: Fall of the earlier tasks from their best, at least 0.
        base: Of the base model over the tasks.
    """

    last: Number | None
    average: Number | None
    learned: Number | None
    backward_transfer: Number | None
    forgetting: Number | None
    base: Number | None


class Hole(Record):
    """A missing score: after which step (from 0), of which task, and why."""

    step: Count
    task: str
    reason: str


class Part(Record):
    """What the last row says if only some tasks were to be scored; see :class:`~lifealign.evaluation.matrix.Part`."""

    tasks: Count
    of: Count
    mean: Number | None
    change: Number | None


class Matrix(Record):
    """A metric on every task after every step.

    Attributes:
        higher_is_better: Direction of the metric.
        tasks: Tasks with any score, in the order in which they were learnt.
        learnt_at: Step (from 0) in which each of them was learnt.
        base: Scores of the base model; a task without a known score is absent.
        rows: Scores after each step; a task that was not scored is absent.
        counts: For each row, the number of held-out examples behind a score; empty if they were not counted.
        holes: Scores that are missing although their task had been learnt.
        summary: Numbers read from the matrix.
        asked_from: For each step, how many of the tasks, the oldest ones, were not to be scored (``evaluate_last``);
            empty if all were.
        part: What the last row says, if some of its tasks were not to be scored; None if all were.
    """

    higher_is_better: bool
    tasks: list[str] = Field(min_length=1)
    learnt_at: dict[str, Count]
    base: Scores
    rows: list[Scores]
    counts: list[dict[str, Count]]
    holes: list[Hole]
    summary: Summary
    asked_from: list[Count] = Field(default_factory=list)
    part: Part | None = None

    @model_serializer(mode="wrap")
    def _only_if_all_was_not_asked(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the last two if everything was scored."""
        return {name: value for name, value in plain(self).items() if name not in ("asked_from", "part") or value}

    @model_validator(mode="after")
    def _fits_together(self) -> Matrix:
        if faults := list(self._faults()):
            raise Faults(faults)
        return self

    def _faults(self) -> Iterator[Fault]:
        for place, tasks in (("tasks", self.tasks), ("learnt_at", self.learnt_at)):
            if sorted(tasks) != sorted(set(self.tasks)):
                yield (place,), f"found {_names(tasks)}, expected each of {_names(set(self.tasks))} once"
        if self.asked_from and len(self.asked_from) != len(self.rows):
            yield (
                ("asked_from",),
                f"found {describe(self.asked_from)}, expected one of each of the {len(self.rows)} steps",
            )
        for task, step in self.learnt_at.items():
            if step >= len(self.rows):
                yield ("learnt_at", task), f"found {shown(step)}, expected one of the {len(self.rows)} steps, from 0"
        for where, row in ((("base",), self.base), *((("rows", step), row) for step, row in enumerate(self.rows))):
            for task in sorted(set(row) - set(self.tasks)):
                yield (*where, task), f"found a task that is not there, expected one of {_names(self.tasks)}"


class Base(Record):
    """The base model, as ``life.json`` describes it.

    Attributes:
        model_name_or_path: A hub id, or a folder or file.
        fingerprint: Content hash of its weights.
        tokenizer: Content hash of its tokenizer; None in files of early versions, which did not record it.
        chat_template: The same for its chat template.
        revision: Commit on the hub; None for a folder or file.
        exact: What was proven exact on it, as text; empty in files of early versions.
    """

    model_name_or_path: str
    fingerprint: str
    tokenizer: str | None
    chat_template: str | None
    revision: str | None
    exact: dict[str, str]


class LearntTask(Record):
    """A task that a step has learnt.

    Attributes:
        name: Its name.
        train_pairs: Number of pairs it was learnt from.
        test_pairs: Number of pairs that were held out.
        data_hash: Content hash of its data and check.
    """

    name: str
    train_pairs: Count
    test_pairs: Count
    data_hash: str


class StageSummary(Record):
    """A summary of a training stage: its first and last optimizer step, and the means.

    Attributes:
        optimizer_steps: Number of optimizer steps.
        first: Figures of the first one, such as ``loss`` and ``grad_norm``; None for a stage without any.
        last: The same for the last one.
        mean: Means over all of them; None also in files of early versions, which did not record them.
    """

    optimizer_steps: Count
    first: dict[str, Number] | None
    last: dict[str, Number] | None
    mean: dict[str, Number] | None


class StepRetention(Record):
    """What a step has cost the tasks before it, by the gate.

    Attributes:
        kept: Whether every earlier task was shown to be kept; a gate that enforces would have refused the step if not.
        worst: The largest observed loss of an earlier task since it was learnt, in [-1, 1].
    """

    kept: bool
    worst: Number


class StepResult(Record):
    """What one step of the stream took and did.

    Attributes:
        name: Its name, ``02-tone``.
        tasks: Tasks learnt in it.
        replayed_pairs: Number of remembered pairs that were mixed in.
        left_out: Number of pairs that could not be used.
        stages: A summary of each training stage.
        losses: Loss of every optimizer step, by stage.
        method_state: Values of the method's state after the step, such as CPPO's classes; each method has its own.
        consolidation: Means over all LoRA factors, by the name of the update.
        consolidation_by_factor: The same means over the layers, per kind of factor (``q_proj.lora_A``).
        seconds: Time, scoring included.
        retention: What it cost earlier tasks; None without a gate, or if there was nothing to lose.
    """

    name: str
    tasks: list[LearntTask] = Field(min_length=1)
    replayed_pairs: Count
    left_out: Count
    stages: dict[str, StageSummary]
    losses: dict[str, list[Number]]
    method_state: dict[str, JsonValue]
    consolidation: dict[str, Figures]
    consolidation_by_factor: dict[str, dict[str, Figures]]
    seconds: Number = Field(ge=0)
    retention: StepRetention | None = None

    @model_serializer(mode="wrap")
    def _only_with_a_gate(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves the gate's part out if there is none."""
        return {name: value for name, value in plain(self).items() if name != "retention" or value is not None}


class Cost(Record):
    """What a run took.

    Attributes:
        seconds: Time of learning, without scoring; with it in early files, which did not tell them apart.
        seconds_with_scoring: Time of learning and scoring.
        state_bytes: What the method has to keep besides the adapter: remembered pairs, its state, past updates.
        adapter_bytes: Size of the adapter, or of all adapters if every task has its own.
        peak_memory_bytes: Peak memory; None if it could not be measured.
    """

    seconds: Number = Field(ge=0)
    seconds_with_scoring: Number = Field(ge=0)
    state_bytes: Count
    adapter_bytes: Count
    peak_memory_bytes: Count | None


class RunResult(Record):
    """One run: one method, one order of the tasks, one seed.

    Attributes:
        label: The run's row in the tables of a comparison; the method's title if no comparison named it.
        order: Name of the order of the tasks; the tasks' names, with commas, if no comparison named it.
        method: Key of the method.
        settings: Every setting of the life, as in :class:`~lifealign.life.settings.LifeConfig` of the version that
            wrote the file; other keys are allowed, and a comparison checks them against its own.
        environment: Versions of the libraries, by name.
        base: The base model.
        one_model: False if every task has a model of its own.
        scores: A matrix per metric that any task has.
        outcomes: Per metric and step, by task, what every held-out example counted for (None: a mark is missing). The
            score is their mean; a metric that is not a mean over examples is absent, and all of them in early files.
        general_text: Per step, loss and perplexity on general text; None if they were not measured.
        general_text_holes: By the name of a step, why they are missing although they were requested.
        cost: What the run took; None in early files, which did not record it.
        steps: What each step took and did.
    """

    label: str
    order: str
    method: str
    settings: dict[str, JsonValue]
    environment: dict[str, str]
    base: Base
    one_model: bool
    scores: dict[str, Matrix]
    outcomes: dict[str, list[dict[str, Outcomes]]]
    general_text: list[General | None]
    general_text_holes: dict[str, str]
    cost: Cost | None
    steps: list[StepResult]

    @property
    def seed(self) -> int:
        """The root seed of the run."""
        seed = self.settings["seed"]
        assert isinstance(seed, int)  # see _faults
        return seed

    @property
    def learnt(self) -> list[LearntTask]:
        """Every task, in the order in which they were met."""
        return [task for step in self.steps for task in step.tasks]

    @model_validator(mode="after")
    def _fits_together(self) -> RunResult:
        if faults := list(self._faults()):
            raise Faults(faults)
        return self

    def _faults(self) -> Iterator[Fault]:
        seed = self.settings.get("seed")
        if isinstance(seed, bool) or not isinstance(seed, int):
            found = describe(seed) if "seed" in self.settings else "nothing"
            yield ("settings", "seed"), f"found {found}, expected a whole number"
        for metric, matrix in self.scores.items():
            if metric not in METRICS:
                known = nearest(metric, METRICS) or f", expected one of {', '.join(METRICS)}"
                yield ("scores", metric), f"found a metric that does not exist{known}"
            yield from self._one_per_step(("scores", metric, "rows"), matrix.rows)
        yield from self._one_per_step(("general_text",), self.general_text)
        for metric, rows in self.outcomes.items():
            if metric not in self.scores:
                yield ("outcomes", metric), "found a metric that has no scores, expected one of those that have"
                continue
            yield from self._one_per_step(("outcomes", metric), rows)
            for step, (row, scores) in enumerate(zip(rows, self.scores[metric].rows, strict=False)):
                if row.keys() != scores.keys():
                    expected = f"{_names(scores)} as in scores.{metric}.rows[{step}]"
                    yield ("outcomes", metric, step), f"found {_names(row)}, expected {expected}"
                for task, examples in row.items():
                    if all(one is None for one in examples):
                        yield ("outcomes", metric, step, task), f"found {describe(examples)}, expected a number in it"

    def _one_per_step(self, place: tuple[str, ...], rows: list[Any]) -> Iterator[Fault]:
        if len(rows) != len(self.steps):
            yield place, f"found {describe(rows)}, expected one of each of the {len(self.steps)} steps"


def _names(tasks: Any) -> str:
    names = [shown(task) for task in tasks]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "no task"
