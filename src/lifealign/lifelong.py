"""The main path: what happens to a model when it learns one more task. Reads like the framework figure of the paper."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
import xxhash

from lifealign.data.replay import distinct, sample_for_replay
from lifealign.data.task import Pair, Task
from lifealign.errors import DataError, LifeError, TrainingError
from lifealign.evaluation.evaluate import Evaluator, HeldOut, Scores
from lifealign.manifest import TaskRecord, Version
from lifealign.memory.adapter import (
    Adapter,
    add,
    install_adapter,
    plain_adapter,
    read_adapter,
    subtract,
    write_adapter,
)
from lifealign.memory.long_term import Consolidation
from lifealign.methods.base import Logps, Segment, Step, StepContext
from lifealign.training.batches import TokenizedPair, tokenize_pairs
from lifealign.training.objectives import Objective, PreferenceObjective, StageName, SupervisedObjective
from lifealign.training.peak_memory import peak_memory_bytes, reset_peak_memory
from lifealign.training.reference import adapter_fingerprint
from lifealign.training.stage import LogRow, train_stage

if TYPE_CHECKING:
    from lifealign.life import Life
    from lifealign.training.progress import Progress


def learn_task(life: Life, task: Task, progress: Progress | None = None) -> Version:
    """Teaches a life one more task; see :meth:`lifealign.life.Life.learn`."""
    with life.writing():
        for version in life.steps:
            if task.name in (record.name for record in version.tasks):
                _require_same_data(life, version, (task,))
                return version
        (step,) = life.method.plan([task], first_index=len(life.steps))
        return learn_step(life, step, progress)


def run_stream(life: Life, stream: Sequence[Task], progress: Progress | None = None) -> list[Version]:
    """Teaches a life a whole stream; steps that it has already lived are not repeated.

    Args:
        life: A life, new or interrupted in this very stream.
        stream: Tasks in the order in which they are met.
        progress: Where to show progress, or None.

    Returns:
        One version per step.

    Raises:
        LifeError: If what the life has learnt is not the beginning of the stream.
        TrainingError: If training or consolidation went wrong; the steps before it are kept.
    """
    steps = life.method.plan(stream)
    with life.writing():
        for step, version in zip(steps, life.steps, strict=False):
            _require_same_data(life, version, step.tasks)
        if len(life.steps) > len(steps):
            raise LifeError(
                f"{life.directory.path}: found {len(life.steps)} steps, expected at most {len(steps)} in this stream"
            )
        for step in steps[len(life.steps) :]:
            learn_step(life, step, progress)
    return life.steps


def learn_step(life: Life, step: Step, progress: Progress | None = None) -> Version:
    """One turn of the lifelong loop: mix, train, difference, denoise, project, remember, score, commit.

    Args:
        life: The life, locked.
        step: What is learnt.
        progress: Where to show progress, or None.

    Raises:
        TrainingError: If a loss, gradient or consolidation went wrong. The life is as it was before the step.
    """
    try:
        learning = _Learning(life, step, progress)
        model = learning.model
        install_adapter(model, life.adapter())  # whatever version was looked at last
        learning.mix()  # this task, and what is remembered of the others
        learning.attach()
        for segment in life.method.segments:
            before = read_adapter(model)
            for stage in segment.stages:
                learning.train(stage)  # SFT, then the preference stage
            update = subtract(read_adapter(model), before)  # short-term update
            refined = learning.consolidate(update, segment)  # denoised and projected
            write_adapter(model, add(before, refined))
        install_adapter(model, plain_adapter(model))  # from here on the model is what will be saved
        learning.remember()
        scores, base = learning.evaluate()  # one row of the matrix
        return learning.commit(scores, base)  # all or nothing
    except BaseException:
        life.forget_loaded()
        raise


class _Learning:
    """What one step does, in the order of :func:`learn_step`, and what it has to write down."""

    def __init__(self, life: Life, step: Step, progress: Progress | None) -> None:
        self.life, self.step, self.progress = life, step, progress
        self.model = life.runtime.model
        self.names = "+".join(task.name for task in step.tasks)
        self.seed = derive_seed(life.config.seed, step.name)
        self.pairs: list[TokenizedPair] = []
        self.memories: dict[str, list[TokenizedPair]] = {}
        self.objectives: dict[StageName, Objective] = {}
        self.logs: dict[str, list[LogRow]] = {}
        self.refined: dict[str, Adapter] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []
        self.replayed = 0
        self.started, self.seconds = time.monotonic(), 0.0
        reset_peak_memory()
        if progress is not None:
            progress.begin(step.name)

    def mix(self) -> None:
        """Tokenises the step's pairs and those that are remembered of earlier tasks, and mixes them."""
        life = self.life
        current = [pair for task in self.step.tasks for pair in task.train]
        mixed = life.replay.mix(current) if life.method.memory_use == "mixed" else distinct(current)
        self.pairs, left_out = self._tokenized(mixed)
        self.left_out = [pair.source for pair in left_out]
        own = {pair.key for pair in current}
        self.replayed = sum(pair.key not in own for pair in self.pairs)
        if not any(pair.key in own for pair in self.pairs):
            raise DataError(
                left_out[0].source,
                field="prompt",
                found=f"a prompt that leaves no room for an answer in max_length = {life.config.data.max_length} "
                f"tokens, in all {len(current)} pairs of task {self.names!r}",
                expected="at least one pair that fits; raise data.max_length",
            )
        self._say_left_out(len(mixed))
        self.memories = {name: self._tokenized(pairs)[0] for name, pairs in life.replay.by_task().items()}

    def attach(self) -> None:
        """Lets the method prepare the model, and looks up the reference of every pair it may take a loss of."""
        life = self.life
        life.method.attach(self._context())
        pairs = list(self.pairs)
        if life.method.memory_use == "held":
            pairs += [pair for remembered in self.memories.values() for pair in remembered]
        if life.config.sft.num_train_epochs:
            self.objectives["sft"] = SupervisedObjective()
        if life.config.preference.num_train_epochs:
            self.objectives["preference"] = PreferenceObjective(life.config.preference.beta, self._reference(pairs))

    def train(self, stage: StageName) -> None:
        """Runs one stage; one that is switched off leaves an empty log."""
        config = self.life.config
        self.logs[stage] = (
            train_stage(
                self.life.runtime,
                self.pairs,
                self.objectives[stage],
                config.sft if stage == "sft" else config.preference,
                self.life.method,
                self.step,
                seed=derive_seed(self.seed, stage),
                progress=self.progress,
            )
            if stage in self.objectives
            else []
        )

    def consolidate(self, update: Adapter, segment: Segment) -> Adapter:
        """Consolidates a short-term update and remembers it; never goes on with the raw one if that fails."""
        if not segment.consolidated:
            return update
        try:
            result: Consolidation = self.life.method.consolidate(update, self.life.memory, self.step)
        except (torch.linalg.LinAlgError, ValueError) as error:  # type: ignore[attr-defined]
            raise TrainingError(
                f"consolidation failed: {error}",
                task=self.names,
                stage=segment.label,
                step=len(self.logs.get(segment.stages[-1], ())),
                way_out="The update was not kept, neither refined nor raw",
            ) from error
        self.life.memory.remember(result.update)
        self.refined[segment.label] = result.update
        self.figures[segment.label] = {
            "mean": result.summary(),
            "factors": {name: asdict(figures) for name, figures in result.figures.items()},
        }
        return result.update

    def remember(self) -> None:
        """Lets the method take what it needs from the finished model; learning ends here, scoring begins."""
        self.life.method.remember(self._context())
        self.seconds = time.monotonic() - self.started

    def evaluate(self) -> tuple[Scores, Scores]:
        """Scores every task seen so far, and the base model on the new ones."""
        life = self.life
        new = [HeldOut(task.name, task.test, task.check) for task in self.step.tasks]
        seen = [task for version in life.steps for task in life.held_out(version)] + new
        evaluator = Evaluator(
            life.runtime,
            life.reference,
            life.answers,
            life.config.evaluation,
            life.config.preference.beta,
            life.config.data.max_length,
            life.base_fingerprint,
        )
        base = evaluator.score(new, None)
        policy = adapter_fingerprint(read_adapter(self.model))
        if life.method.one_model:
            return evaluator.score(seen, policy), base
        scores = evaluator.score(new, policy)
        if life.steps:  # each earlier task still has the model of its own step
            scores.carry(life.directory.json(f"tasks/{life.steps[-1].name}/scores.json"))
        return scores, base

    def commit(self, scores: Scores, base: Scores) -> Version:
        """Writes everything the step has made, then makes it exist."""
        life, step = self.life, self.step
        drawn = {
            task.name: sample_for_replay(
                task.train, life.replay_config.fraction, derive_seed(self.seed, f"replay {task.name}")
            )
            for task in step.tasks
        }
        state = life.method.state()
        folder = f"tasks/{step.name}"
        summary = {
            "seed": self.seed,
            "pairs": sum(len(task.train) for task in step.tasks),
            "replayed_pairs": self.replayed,
            "left_out": self.left_out,
            "stages": self.logs,
        }
        files: dict[str, Any] = {
            **life.adapter_files(step.name, read_adapter(self.model)),
            f"memory/{step.name}.safetensors": {
                f"{label}/{name}": tensor.float()
                for label, update in self.refined.items()
                for name, tensor in update.items()
            },
            f"memory/{step.name}.method.safetensors": state.tensors,
            f"replay/{step.name}.jsonl": [
                pair.as_row() | {"task": name} for name, pairs in drawn.items() for pair in pairs
            ],
            f"{folder}/method.json": {"method": life.config.model_dump(mode="json")["method"], "values": state.values},
            f"{folder}/training.json": summary,
            f"{folder}/consolidation.json": self.figures,
            f"{folder}/scores.json": {"scores": scores.values, "base": base.values, "outcomes": scores.outcomes},
            f"{folder}/answers.jsonl": scores.answers,
            f"{folder}/base_answers.jsonl": base.answers,
            f"{folder}/time.json": {
                "seconds": round(time.monotonic() - self.started, 1),
                "learning_seconds": round(self.seconds, 1),
                "peak_memory_bytes": peak_memory_bytes(),
            },
        }
        for task in step.tasks:
            files[f"{folder}/{task.name}.test.jsonl"] = [pair.as_row() for pair in task.test]
        version = life.directory.commit(step.name, [_record(task) for task in step.tasks], files)
        life.replay.tasks.update(drawn)
        life.write_scores()
        return version

    def _context(self) -> StepContext:
        return StepContext(
            self.step,
            self.life.runtime,
            self.pairs,
            self.memories,
            self.objectives,
            self._policy_logps,
            derive_seed(self.seed, "method"),
        )

    def _policy_logps(self, pairs: Sequence[TokenizedPair]) -> Logps:
        """Log-probabilities under the model as it is now."""
        life = self.life
        policy = f"{life.base_fingerprint} {adapter_fingerprint(plain_adapter(self.model))}"
        return life.reference.logps(life.runtime, pairs, policy, life.config.evaluation.per_device_eval_batch_size)

    def _reference(self, pairs: Sequence[TokenizedPair]) -> Logps:
        """Reference log-probabilities: of the base, or of the policy at the start of the task."""
        life = self.life
        if life.config.preference.reference == "task_start":
            return self._policy_logps(pairs)
        with life.runtime.base_policy():
            size = life.config.evaluation.per_device_eval_batch_size
            return life.reference.logps(life.runtime, pairs, life.base_fingerprint, size)

    def _tokenized(self, pairs: Sequence[Pair]) -> tuple[list[TokenizedPair], list[Pair]]:
        return tokenize_pairs(self.life.runtime.tokenizer, pairs, self.life.config.data.max_length)

    def _say_left_out(self, total: int) -> None:
        if self.left_out and self.progress is not None:
            shown = ", ".join(self.left_out[:3]) + (", ..." if len(self.left_out) > 3 else "")
            self.progress.say(
                f"  {len(self.left_out)} of {total} pairs left out: no room for an answer in "
                f"{self.life.config.data.max_length} tokens, or no difference within them ({shown})"
            )


def derive_seed(root: int, purpose: str) -> int:
    """A seed for one purpose, from the root seed: independent of what else was seeded, and the same in every run.

    Example:
        >>> derive_seed(42, "01-tone") == derive_seed(42, "01-tone") != derive_seed(42, "02-tone")
        True
    """
    return xxhash.xxh64(f"{root} {purpose}".encode()).intdigest() >> 1  # torch takes 63 bits and a sign


def _record(task: Task) -> TaskRecord:
    check = None if task.check is None else task.check.model_dump(mode="json")
    return TaskRecord(
        name=task.name,
        train_pairs=len(task.train),
        test_pairs=len(task.test),
        data_hash=task.data_hash,
        check=check,
    )


def _require_same_data(life: Life, version: Version, tasks: Sequence[Task]) -> None:
    learnt = {record.name: record.data_hash for record in version.tasks}
    given = {task.name: task.data_hash for task in tasks}
    if list(learnt) != list(given):
        raise LifeError(
            f"{life.directory.path}: found {', '.join(learnt)} learnt in step {version.name}, expected "
            f"{', '.join(given)}; this life belongs to another stream"
        )
    for name in given:
        if learnt[name] != given[name]:
            raise LifeError(
                f"{life.directory.path}: found task {name!r} learnt from other data in step {version.name}, expected "
                "the same pairs and check; give the task another name, or roll back to before it"
            )
