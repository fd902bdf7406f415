"""The records that a step of a life stores as JSON, for reading and writing.

A life may come from somebody else, so the files are read strictly: one line says what does not fit, and where. Keys
with a default are only written if there is something to record.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
)

from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.typed_json import Count, Kind, Number, Record, validated
from lifealign.settings.faults import Faults

if TYPE_CHECKING:
    from lifealign.memory.long_term import Consolidation

Outcomes = Annotated[list[Number | None], Field(min_length=1)]
"""The value of every held-out example of a task; None for one without a mark."""


class BaseGeneral(Record):
    """Mean loss in nats per token, and its exponential, of the base model on general text."""

    loss: Number
    perplexity: Number = Field(gt=0)


class General(Record):
    """A model on general text.

    Attributes:
        loss: Mean loss in nats per token.
        perplexity: Its exponential; lower is better.
        tokens: Number of predicted tokens.
        text: Content hash of the text; perplexities on two texts are not comparable.
        base: Loss and perplexity of the base model.
    """

    loss: Number
    perplexity: Number = Field(gt=0)
    tokens: Count
    text: str
    base: BaseGeneral


class Figures(Record):
    """What consolidation did to one LoRA factor, or means over several of them.

    Attributes:
        rank_kept: Rank after denoising.
        energy_kept: Share of the update's energy after denoising, in (0, 1].
        overlap_energy: Share of the denoised update's energy that lies in the span of history, in [0, 1].
        norm_before: Frobenius norm of the short-term update.
        norm_after: Frobenius norm of the refined update.
        sketch_error: Bound on what a sketch of history changes of the refined update, as a share of the denoised one.
    """

    rank_kept: int | float
    energy_kept: Number
    overlap_energy: Number
    norm_before: Number
    norm_after: Number
    sketch_error: Number = 0.0

    @model_serializer(mode="wrap")
    def _only_of_a_sketch(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves the bound out while history is exact."""
        return {name: value for name, value in plain(self).items() if name != "sketch_error" or value}


class Consolidated(Record):
    """Consolidation of one update: means over its factors, and the figures of each; a method may have no figures."""

    mean: Figures | None
    factors: dict[str, Figures]

    @classmethod
    def of(cls, result: Consolidation) -> Consolidated:
        """The record of what :func:`~lifealign.memory.long_term.consolidate` returned for an update."""
        mean = result.summary()
        return cls(
            mean=Figures(**mean) if mean else None,
            factors={name: Figures(**asdict(figures)) for name, figures in result.figures.items()},
        )

    @field_validator("mean", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        return None if value == {} else value  # the means of no factors

    @field_serializer("mean")
    def _no_figures(self, mean: Figures | None) -> Figures | dict[str, float]:
        return {} if mean is None else mean


def _with_loss(row: dict[str, float]) -> dict[str, float]:
    if "loss" not in row:
        raise Faults([(("loss",), "found nothing, expected a number")])
    return row


class Training(Record):
    """``training.json``: what a step was trained on, and the figures of every optimizer step, by stage."""

    seed: int
    pairs: Count
    replayed_pairs: Count
    left_out: list[str]
    left_out_held_out: dict[str, list[str]]
    stages: dict[str, list[Annotated[dict[str, Number], AfterValidator(_with_loss)]]]


class Adopted(Record):
    """``adopted.json``: the adapter that a life began with.

    Attributes:
        adapter: Content hash of its factors.
        dtype: The dtype that they had in the file.
        start_known: Whether ``00-base`` is the adapter that the training began from; otherwise its ``lora_A`` is that
            of the adapter itself, and what the training did to it is not known.
    """

    adapter: str
    dtype: str
    start_known: bool


class SavedMethod(Record):
    """``method.json``: the method as the settings name it, and the values of its state."""

    method: dict[str, JsonValue]
    values: dict[str, JsonValue]


class Time(Record):
    """``time.json``: seconds with scoring and without, and the peak memory in bytes."""

    seconds: Number = Field(ge=0)
    learning_seconds: Number = Field(ge=0)
    peak_memory_bytes: Count


class OwnScores(Record):
    """``scores.json``: what a step itself has measured.

    Attributes:
        scores: Scores by metric, then task.
        base: Scores of the base model on the new tasks.
        outcomes: The value of every held-out example, for metrics that are means over examples.
        counts: Number of held-out examples behind a score.
        holes: Why a requested score is missing; for perplexity under ``general text``.
        base_holes: The same for the base model.
        general: The model on general text; None if it was not measured.
    """

    scores: dict[str, dict[str, Number]]
    base: dict[str, dict[str, Number]]
    outcomes: dict[str, dict[str, Outcomes]]
    counts: dict[str, dict[str, Count]]
    holes: dict[str, dict[str, str]] = Field(default_factory=dict)
    base_holes: dict[str, dict[str, str]] = Field(default_factory=dict)
    general: General | None = None


class Message(Record):
    """One turn of a prompt."""

    role: str
    content: str


Prompt = Annotated[list[Message], Field(min_length=1)]
"""The turns of a prompt, the question last."""


class Answer(Record):
    """A row of ``answers.jsonl``: prompt, answer, the tasks that it belongs to, and by task whether its check holds.

    ``draw`` counts the answers to a prompt, from 0, where there are several.
    """

    prompt: Prompt
    answer: str
    tasks: list[str]
    holds: dict[str, bool]
    draw: Count = 0


class LaterScores(Record):
    """``evaluation/METRIC.json``: a metric of the tasks, measured later.

    Attributes:
        metric: Name of the metric.
        settings: Settings that must match for two numbers to be comparable.
        scores: Scores by task.
        base: Scores of the base model, on tasks for which no other version has any.
        outcomes: The value of every held-out example; None for a metric that is not a mean over examples.
        counts: By task, the number of held-out examples behind a score.
        holes: By task, why a score is missing.
        base_holes: The same for the base model.
        answers: Answers that were judged or compared.
        base_answers: The same for the base model.
    """

    metric: str
    settings: dict[str, JsonValue]
    scores: dict[str, Number]
    base: dict[str, Number]
    outcomes: dict[str, Outcomes] | None
    counts: dict[str, Count]
    holes: dict[str, str]
    base_holes: dict[str, str]
    answers: list[Answer]
    base_answers: list[Answer]


class LaterGeneral(Record):
    """``evaluation/perplexity.json``: the model on general text, measured later; ``settings`` name the text."""

    metric: str
    settings: dict[str, JsonValue]
    general: General


class AskedJudge(Record):
    """The judge that was asked: its model, and the address of its server."""

    model: str
    place: str


class Preferred(Record):
    """How often our answers are preferred; see :class:`~lifealign.evaluation.judge.pairwise.WinRate`."""

    wins: Count
    ties: Count
    losses: Count
    missing: Count
    rate: Number
    low: Number
    high: Number
    moved: Number | None


class Against(Record):
    """``evaluation/against-VERSION.json``: a judge's preferences between our answers and another version's.

    Attributes:
        version: Our version.
        against: The other version.
        judge: The judge that was asked.
        settings: Settings under which the answers were made.
        tasks: Preferences by task, and in ``all``; None if too much is missing.
        outcomes: By task, one of ``win``, ``tie`` and ``loss`` per prompt; None for a missing one.
    """

    version: str
    against: str
    judge: AskedJudge
    settings: dict[str, JsonValue]
    tasks: dict[str, Preferred | None]
    outcomes: dict[str, list[str | None]]


def as_json(record: BaseModel) -> dict[str, Any]:
    """A record in the form of its file: every key that was given."""
    return record.model_dump(mode="json", exclude_unset=True)


def read_record(directory: LifeDirectory, file: str, kind: type[Kind]) -> Kind:
    """Reads a committed JSON file of a life as a record.

    Raises:
        LifeError: If the file is missing, damaged, or not such a record.
    """
    return validated(directory.path / file, directory.json(file), kind)


def read_answers(directory: LifeDirectory, file: str) -> list[Answer]:
    """Reads a committed JSONL file of answers; raises the errors of :func:`read_record`, with the line."""
    path = directory.path / file
    return [validated(f"{path}:{line}", row, Answer) for line, row in enumerate(directory.rows(file), start=1)]


def training(directory: LifeDirectory, step: str) -> Training:
    """What a step was trained on."""
    return read_record(directory, names.training_log(step), Training)


def consolidation(directory: LifeDirectory, step: str) -> dict[str, Consolidated]:
    """Figures of a step's consolidation, by the name of the update."""
    return read_record(directory, names.consolidation_figures(step), dict[str, Consolidated])


def saved_method(directory: LifeDirectory, step: str) -> SavedMethod:
    """The method and the values of its state after a step."""
    return read_record(directory, names.method_values(step), SavedMethod)


def time_taken(directory: LifeDirectory, step: str) -> Time:
    """The time and memory that a step took."""
    return read_record(directory, names.time_and_memory(step), Time)


def own_scores(directory: LifeDirectory, step: str) -> OwnScores:
    """The scores that a step itself has measured."""
    file = names.own_scores(step)
    return directory.parsed(file, lambda: read_record(directory, file, OwnScores))
