"""What one step of the lifelong loop does, and what it has to write down."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from lifealign.data.pair import Pair
from lifealign.data.replay import distinct, sample_for_replay
from lifealign.errors import ConfigError, DataError, LifeError, TrainingError
from lifealign.evaluation.evaluator import Evaluator, general_record
from lifealign.evaluation.general import general_passages, passages_hash, require_predictable
from lifealign.evaluation.held_out import left_out_text, places, scorable
from lifealign.evaluation.matrix import matrices
from lifealign.evaluation.metrics import METRICS, PERPLEXITY
from lifealign.evaluation.scores import HeldOut, Scores, reason_of
from lifealign.evaluation.text import needs_jieba, require_jieba
from lifealign.life.card.markdown import plain
from lifealign.life.card.model_card import CardFacts, model_card
from lifealign.life.disk.directory import LOGS
from lifealign.life.disk.manifest import TaskRecord, Version
from lifealign.life.disk.measurements import GENERAL_TEXT, Record, comparable, known_under, own_record
from lifealign.life.disk.step_files import scores_file
from lifealign.life.settings import derive_seed
from lifealign.memory.long_term import Consolidation
from lifealign.memory.update import Adapter
from lifealign.methods.base import Segment, Step, StepContext
from lifealign.model.adapter import adapter_fingerprint, plain_adapter, read_adapter
from lifealign.model.base_model import EMBEDDED, EMBEDDED_LICENSE
from lifealign.model.prompt_pool import prompt_pool
from lifealign.model.tokens import TokenizedPair, count_reasoning, tokenize_pairs
from lifealign.training.objectives import Logps, Objective, PreferenceObjective, StageName, SupervisedObjective
from lifealign.training.peak_memory import peak_memory_bytes, reset_peak_memory
from lifealign.training.stage import LogRow, train_stage
from lifealign.training.trackers import Trackers

if TYPE_CHECKING:
    from lifealign.life.life import Life
    from lifealign.report.progress import Progress

logger = logging.getLogger(__name__)


class Measured(NamedTuple):
    """What a step has measured: its scores, those of the base on its new tasks, and general ability."""

    scores: Scores
    base: Scores
    general: dict[str, Any] | None

    @property
    def record(self) -> Record:
        """As the life will know it."""
        scores, base = self.scores, self.base
        return Record(
            scores.values, base.values, scores.outcomes, scores.counts, scores.holes, base.holes, general=self.general
        )

    def tracked(self) -> dict[str, dict[str, float]]:
        """Every score for a tracker."""
        general = {} if self.general is None else {PERPLEXITY: {"general text": self.general["perplexity"]}}
        return self.scores.values | general


class Learning:
    """One step of a life, its methods in the order in which :func:`lifealign.life.learn.learn_step` calls them.

    Args:
        life: The life, locked.
        step: What is learnt.
        progress: Where to show progress, or None.

    Raises:
        ConfigError: If a tracker is not installed, or the general text is not the one of the steps before.
    """

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
        self.passages = self._general_passages()
        self.new: list[HeldOut] = []
        self.earlier: list[HeldOut] = []
        self.unscorable: dict[str, list[str]] = {}
        self.learnt: dict[str, Any] = {}
        self.interruption: KeyboardInterrupt | None = None
        """Ctrl-C while the step was scored: it is committed first, and goes on from there."""
        self.trackers = Trackers(
            life.report_to,
            life=life.directory.path.absolute().name,
            step=step.name,
            folder=life.directory.inside(f"{LOGS}/{step.name}").parent,
            settings=life.config.model_dump(mode="json"),
        )
        self.started, self.seconds = time.monotonic(), 0.0
        reset_peak_memory()
        if progress is not None:
            progress.begin(step.name)

    def hold_out(self) -> None:
        """Looks at everything that scoring will need, before anything is trained: found afterwards it would cost hours.

        The held-out pairs of the new tasks are tokenised, and those that cannot be scored are counted and said. Those
        of earlier tasks have been through the same under the same settings, which a life does not change, so they are
        read and compared with their checksums, and not tokenised again.

        Raises:
            DataError: If the chat template refuses a held-out prompt, a task has held-out pairs and none of them can
                be scored, or the general text has nothing to predict.
            ConfigError: If a metric needs a package for the held-out answers that is not installed.
            LifeError: If held-out pairs of an earlier task are damaged, or the disk has no room for the step.
        """
        life, evaluator = self.life, self.life.evaluator()  # opens the caches, too
        for task in self.step.tasks:
            held_out = HeldOut(task.name, task.test, task.check)
            limits = {"max_length": evaluator.max_length, "new_tokens": evaluator.new_tokens(held_out)}
            found = scorable(life.runtime, task.name, task.test, **limits)
            if text := left_out_text(found, task.name, **limits):
                self._say(text)
            self.unscorable[task.name] = list(found.left_out)
            self.new.append(HeldOut(task.name, found.pairs, task.check))
        self.earlier = [task for version in life.steps for task in life.held_out(version)]
        if "paper_rouge_l" in life.config.evaluation.metrics and any(
            needs_jieba(pair.chosen) for task in (*self.earlier, *self.new) for pair in task.pairs
        ):
            require_jieba()
        if self.passages:
            text_file = life.config.evaluation.general_text
            path = None if text_file is None else Path(text_file)
            require_predictable(life.runtime, self.passages, path, evaluator.max_length)
        self._require_room_on_disk()

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
        self._say_stripped(mixed)
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
                self.names,
                seed=derive_seed(self.seed, stage),
                listeners=[self.trackers] if self.progress is None else [self.progress, self.trackers],
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
        """Lets the method take what it needs from the finished model; learning ends here, scoring begins.

        What was learnt is taken off the device now: whatever scoring does to the model, the process' memory or the GPU,
        this is what will be committed.
        """
        life = self.life
        life.method.remember(self._context())
        state = life.method.state()
        self.learnt = {
            "adapter": read_adapter(self.model),
            "state": {name: tensor.detach().cpu() for name, tensor in state.tensors.items()},
            "values": state.values,
            "refined": {
                f"{label}/{name}": tensor.detach().float().cpu()
                for label, update in self.refined.items()
                for name, tensor in update.items()
            },
        }
        self.seconds = time.monotonic() - self.started

    def evaluate(self) -> Measured:
        """Scores every task seen so far and the base model on the new ones, and measures general ability.

        Nothing that goes wrong here loses the step: what could not be measured is a hole with its reason, and
        ``lifealign evaluate`` fills it.
        """
        life, evaluator = self.life, self.life.evaluator()
        measured = Measured(Scores(), Scores(), {})
        scored = [*self.earlier, *self.new] if life.method.one_model else self.new
        try:
            if not life.method.one_model and life.steps:  # each earlier task still has the model of its own step
                for metric in METRICS:
                    settings = comparable(metric, life.config.evaluation)
                    measured.scores.carry(known_under(life.directory, life.steps[-1], metric, settings)[0])
            evaluator.score(self.new, None, measured.base)
            policy = adapter_fingerprint(self.learnt["adapter"])
            evaluator.score(scored, policy, measured.scores)
            self._measure_general(evaluator, policy, measured)
        except (Exception, KeyboardInterrupt) as error:  # whatever it is, hours of training are worth more
            logger.debug("scoring of %s ended early", self.step.name, exc_info=True)
            evaluator.fail(self.new, measured.base, error)
            evaluator.fail([*self.earlier, *self.new], measured.scores, error)
            if self.passages and not measured.general:
                measured.scores.fail(PERPLEXITY, GENERAL_TEXT, error)
            if isinstance(error, KeyboardInterrupt):
                self.interruption = error
        for why, missing in measured.record.missing.items():
            told = "1 score is missing" if len(missing) == 1 else f"{len(missing)} scores are missing"
            self._say(
                f"{self.step.name}: {told} ({why}): {places(missing)}. The step is kept; `lifealign evaluate` measures "
                "what is missing"
            )
        return measured._replace(general=measured.general or None)

    def _measure_general(self, evaluator: Evaluator, policy: str, measured: Measured) -> None:
        if not self.passages:
            return
        known = self._known_general()
        try:
            found = general_record(evaluator, self.passages, policy, known["base"] if known else None)
        except Exception as error:
            measured.scores.fail(PERPLEXITY, GENERAL_TEXT, error)
            return
        assert measured.general is not None
        measured.general.update(found)

    def commit(self, measured: Measured) -> Version:
        """Writes everything the step has made, then makes it exist."""
        life, step, learnt = self.life, self.step, self.learnt
        drawn = {
            task.name: sample_for_replay(
                task.train, life.replay_config.fraction, derive_seed(self.seed, f"replay {task.name}")
            )
            for task in step.tasks
        }
        folder = f"tasks/{step.name}"
        summary = {
            "seed": self.seed,
            "pairs": sum(len(task.train) for task in step.tasks),
            "replayed_pairs": self.replayed,
            "left_out": self.left_out,
            "left_out_held_out": self.unscorable,
            "stages": self.logs,
        }
        files: dict[str, Any] = {
            **life.adapter_files(step.name, learnt["adapter"]),
            f"versions/{step.name}/README.md": self._card(measured),
            f"memory/{step.name}.safetensors": learnt["refined"],
            f"memory/{step.name}.method.safetensors": learnt["state"],
            f"replay/{step.name}.jsonl": [
                pair.as_row() | {"task": name} for name, pairs in drawn.items() for pair in pairs
            ],
            f"{folder}/method.json": {
                "method": life.config.model_dump(mode="json")["method"],
                "values": learnt["values"],
            },
            f"{folder}/training.json": summary,
            f"{folder}/consolidation.json": self.figures,
            scores_file(step.name): own_record(measured.scores, measured.base, measured.general),
            f"{folder}/answers.jsonl": measured.scores.answers,
            f"{folder}/base_answers.jsonl": measured.base.answers,
            f"{folder}/time.json": {
                "seconds": round(time.monotonic() - self.started, 1),
                "learning_seconds": round(self.seconds, 1),
                "peak_memory_bytes": peak_memory_bytes(),
            },
        }
        for task in self.new:
            files[f"{folder}/{task.name}.test.jsonl"] = [pair.as_row() for pair in task.pairs]
        version = life.directory.commit(step.name, self._records(), files)
        life.replay.tasks.update(drawn)
        life.write_scores()
        self.trackers.finish(measured.tracked(), len(life.steps))
        return version

    def _records(self) -> list[TaskRecord]:
        """What the manifest says of the step's tasks; held out is what is scored."""
        return [
            TaskRecord(
                name=task.name,
                train_pairs=len(task.train),
                test_pairs=len(held_out.pairs),
                data_hash=task.data_hash,
                check=None if task.check is None else task.check.model_dump(mode="json"),
            )
            for task, held_out in zip(self.step.tasks, self.new, strict=True)
        ]

    def _card(self, measured: Measured) -> str:
        """The model card of the version that this step makes; a plain one where something about it breaks."""
        try:
            return self._whole_card(measured)
        except Exception as error:  # not worth what was learnt
            self._say(f"{self.step.name}: the model card could not be made ({reason_of(error)}); the step is kept")
            return f"# {plain(self.step.name)}\n\nThe model card could not be made: {plain(reason_of(error))}\n"

    def _whole_card(self, measured: Measured) -> str:
        life = self.life
        records = [*(record.as_step() for record in life.records), measured.record.as_step()]
        tasks = [
            {**record.model_dump(include={"name", "train_pairs", "test_pairs"}), "step": name}
            for name, records in [
                *((version.name, version.tasks) for version in life.steps),
                (self.step.name, self._records()),
            ]
            for record in records
        ]
        steps = [*(version.name for version in life.steps), self.step.name]
        base, config = life.directory.manifest.base, life.config
        embedded = config.model.model_name_or_path == EMBEDDED
        return model_card(
            CardFacts(
                version=self.step.name,
                base=base.model_name_or_path,
                revision=base.revision,
                fingerprint=base.fingerprint,
                embedded=embedded,
                method=config.method,
                is_adapter=prompt_pool(self.model) is None,
                steps=steps,
                tasks=tasks,
                matrices=matrices(records, {task["name"]: steps.index(task["step"]) for task in tasks}),
                general=measured.general,
                settings=config.model_dump(mode="json"),
                environment=dict(sorted(life.directory.manifest.environment.items())),
                license=config.license or (EMBEDDED_LICENSE if embedded else None),
                general_hole=measured.scores.holes.get(PERPLEXITY, {}).get(GENERAL_TEXT),
            )
        )

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
        data = self.life.config.data
        return tokenize_pairs(self.life.runtime.tokenizer, pairs, data.max_length, data.reasoning)

    def _general_passages(self) -> tuple[str, ...]:
        """General text, before anything is trained: what is not there, or another text than before, costs no time."""
        settings = self.life.config.evaluation
        if PERPLEXITY not in settings.metrics:
            return ()
        passages = general_passages(None if settings.general_text is None else Path(settings.general_text))
        known = self._known_general()
        if known is not None and known["text"] != passages_hash(passages):
            raise ConfigError(
                f"{settings.general_text or 'general text'}: found another text than at the last step, expected the "
                "same: perplexities of two texts do not compare; `lifealign evaluate LIFE --metric perplexity "
                "--replace` measures every version on this one"
            )
        return passages

    def _say_stripped(self, pairs: Sequence[Pair]) -> None:
        if self.life.config.data.reasoning == "strip":
            stripped, empty = count_reasoning(self.life.runtime.tokenizer, pairs)
            if stripped:
                nothing_left = f", {empty} of them nothing else, whose pairs are left out" if empty else ""
                self._say(
                    f"reasoning taken off {stripped} of {2 * len(pairs)} answers{nothing_left}; "
                    "data.reasoning: keep would learn it"
                )

    def _known_general(self) -> dict[str, Any] | None:
        """Figures on general text of the last step that has some."""
        records = self.life.records if self.life.steps else []
        return next((record.general for record in reversed(records) if record.general is not None), None)

    def _require_room_on_disk(self) -> None:
        """Refuses to train for hours what the disk could not take; an estimate, in favour of training."""
        path = self.life.directory.path
        adapter = sum(factor.nbytes for factor in read_adapter(self.model).values())
        needed = adapter * (1 + len(self.life.method.segments))  # the adapter, and what each segment has added
        free = shutil.disk_usage(path).free
        if free < needed:
            raise LifeError(
                f"{path}: found {free / 1e6:.0f} MB free on the disk, expected at least {needed / 1e6:.0f} MB for "
                "what this step will write; nothing was trained"
            )

    def _say_left_out(self, total: int) -> None:
        if self.left_out:
            self._say(
                f"{len(self.left_out)} of {total} pairs left out: no room for an answer in "
                f"{self.life.config.data.max_length} tokens, or no difference within them ({places(self.left_out)})"
            )

    def _say(self, text: str) -> None:
        """Says something that a person should know, above the progress bar, or in the log where there is none."""
        if self.progress is not None:
            self.progress.say(f"  {text}")
        else:
            logger.warning("%s", text)
