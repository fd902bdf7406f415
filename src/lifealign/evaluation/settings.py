"""Settings of how a model is scored."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lifealign.evaluation.judge.settings import JudgeConfig
from lifealign.evaluation.metrics import DEFAULT_METRICS, METRICS, PERPLEXITY
from lifealign.settings.faults import Fault, Faults, nearest, needs, wrong
from lifealign.settings.section import RelativeToFile, Settings
from lifealign.storage.home import with_home


class EvaluationConfig(Settings):
    """How the model is scored after each step; ``lifealign evaluate`` adds metrics later.

    Attributes:
        metrics: What is measured: any of ``lifealign.evaluation.metrics.METRICS`` except the judge, which only
            ``lifealign evaluate`` uses, and ``perplexity`` on general text.
        max_new_tokens: Most tokens of a generated answer.
        generate: Whether answers are generated, for the metrics that need them.
        do_sample: Whether answers are sampled, as in the paper, with the three numbers below; greedy otherwise.
        temperature: Divides the logits before a token is sampled.
        top_p: Tokens are sampled from the likeliest ones that together hold this probability, in (0, 1]; 1 is no limit.
        top_k: Tokens are sampled from at most this many likeliest ones; 0 is no limit.
        draws: How many answers are sampled for each prompt. What a prompt counts in a score is the mean over them; a
            judge sees the first one only.
        evaluate_last: How many of the earlier tasks, the latest ones, are scored after a step beside its own; None for
            all. What was not scored is not guessed: a mean that needs it is missing. ``lifealign evaluate`` scores all.
        prompts: How many held-out prompts of a task get a generated answer; None for all.
        pairs: How many held-out pairs of a task are scored for preference; None for all.
        general_text: File of general text for the perplexity, ``.jsonl`` with a field ``text`` or ``.txt`` with a blank
            line between passages; None for the passages that come with the package.
    """

    metrics: tuple[str, ...] = DEFAULT_METRICS
    per_device_eval_batch_size: int = Field(16, ge=1)  # ours: suits two cores and the embedded model
    max_new_tokens: int = Field(64, ge=1)  # ours: the checks read short answers; the released code has 1024
    generate: bool = True
    do_sample: bool = False  # ours: the same answer every time
    temperature: float = Field(0.95, gt=0)  # released code
    top_p: float = Field(0.7, gt=0, le=1)  # released code
    top_k: int = Field(50, ge=0)  # released code
    draws: int = Field(1, ge=1)  # paper and released code: one sample
    evaluate_last: int | None = Field(None, ge=0)  # paper: all
    prompts: int | None = Field(None, ge=1)
    pairs: int | None = Field(None, ge=1)
    general_text: Annotated[str | None, RelativeToFile()] = None

    @field_validator("metrics")
    @classmethod
    def _are_known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        known = [*(name for name, metric in METRICS.items() if metric.measured_on != "judge"), PERPLEXITY]
        for number, name in enumerate(metrics):
            if name not in known:
                hint = "; the judge is asked by `lifealign evaluate`" if name == "judge" else nearest(name, known)
                raise ValueError(wrong(repr(name), f"some of {', '.join(known)}{hint}"))
            if name in metrics[:number]:
                raise ValueError(wrong(f"{name!r} twice", "each metric once"))
        return metrics

    @field_validator("general_text")
    @classmethod
    def _is_found_from_everywhere(cls, file: str | None) -> str | None:
        return None if file is None else os.path.abspath(with_home(file))

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        """Settings that would do nothing are refused."""
        faults: list[Fault] = []
        for key in ("temperature", "top_p", "top_k", "draws"):
            if not self.do_sample and getattr(self, key) != type(self).model_fields[key].default:
                faults.append(((key,), needs("sampled answers", "add do_sample: true")))
        if self.general_text is not None and PERPLEXITY not in self.metrics:
            faults.append((("general_text",), needs(f"{PERPLEXITY} among the metrics", "add it to metrics")))
        if faults:
            raise Faults(faults)
        return self


class RetentionConfig(Settings):
    """What a step may cost the tasks learnt before it. In YAML its mode is enough: ``retention: enforce``.

    Attributes:
        mode: ``off`` checks nothing. ``warn`` measures after each step what every earlier task has lost since it was
            learnt, says so, and keeps the step. ``enforce`` keeps a step only if no earlier task can have lost more
            than ``max_loss``, if need be with a smaller part of its update, and refuses it otherwise.
        max_loss: The largest loss of a task that is accepted: share of its prompts, in (0, 1).
        confidence: Probability that no accepted step of the whole life has a larger true loss, in (0, 1).
        set_aside: Share of a task's training prompts that are set aside for this and not trained on, where the task has
            no gate pairs of its own; in [0, 1).
        scales: With ``enforce``, the parts of a step's update that may be kept, each greater than 0.
        judge: Who decides whether the answer to a gate prompt holds, for tasks without an exact check; None goes by the
            preference margin. Every step then asks it about every gate prompt of every such task.
        least_mark: The lowest of the judge's marks, 1 to 10, with which an answer holds.
    """

    mode: Literal["off", "warn", "enforce"] = "off"
    max_loss: float = Field(0.1, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0, lt=1)
    set_aside: float = Field(0.2, ge=0, lt=1)
    scales: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 0.75, 0.5, 0.25)
    judge: JudgeConfig | None = None
    least_mark: int = Field(6, ge=2, le=10)

    @model_validator(mode="before")
    @classmethod
    def _from_mode(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str | bool) else value

    @field_validator("mode", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """YAML reads ``off`` as false."""
        return "off" if value is False else value

    @field_validator("scales")
    @classmethod
    def _differ(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or len(set(scales)) < len(scales):
            raise ValueError(wrong(f"{list(scales)}", "at least one scale, each once"))
        return scales

    @property
    def alpha(self) -> float:
        """Error probability of the whole life."""
        return 1 - self.confidence

    @property
    def attempts(self) -> int:
        """Most scales that a step may try."""
        return len(self.scales) if self.mode == "enforce" else 1
