"""A life: everything a model has learnt so far, in one directory. Create, open, learn, load, roll back."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.pair import Pair
from lifealign.data.replay import ReplayBuffer, ReplayConfig
from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.evaluation.evaluator import Evaluator
from lifealign.evaluation.matrix import ScoreMatrix, matrices
from lifealign.evaluation.scores import HeldOut
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.life.disk.directory import CACHE, LifeDirectory
from lifealign.life.disk.manifest import FORMAT_VERSION, MANIFEST, BaseRecord, Manifest, Version
from lifealign.life.disk.measurements import Record, read_records
from lifealign.life.disk.step_files import ADAPTER_FILE, ANSWERS_FILE, FIRST, POOL_FILE, REFERENCE_FILE, saved_method
from lifealign.life.settings import LifeConfig
from lifealign.memory.long_term import LongTermMemory
from lifealign.memory.update import Adapter
from lifealign.methods.base import Method, MethodState
from lifealign.model.adapter import attach_lora, install_adapter, read_adapter
from lifealign.model.base_model import Base, load_base
from lifealign.model.generate import AnswerCache
from lifealign.model.prompt_pool import prompt_pool
from lifealign.model.reference import ReferenceCache
from lifealign.model.runtime import Runtime, current_device
from lifealign.model.template_check import require_usable_template
from lifealign.settings.faults import differences
from lifealign.settings.section import build_config, dump_config
from lifealign.storage.files import TEMPORARY, write_json, write_text
from lifealign.storage.inside import remove
from lifealign.storage.lock import LOCK, LOCK_HOLDER, exclusive_lock

if TYPE_CHECKING:
    from lifealign.report.progress import Progress

logger = logging.getLogger(__name__)

IDENTITY_WORDS = {
    "fingerprint": "fingerprint",
    "tokenizer": "a tokenizer of fingerprint",
    "chat_template": "a chat template of fingerprint",
    "revision": "revision",
}

logger = logging.getLogger(__name__)


class Life:
    """Everything a model has learnt; see ``docs/life_format.md`` for the files.

    Example:
        >>> life = Life.create("my-bot", model="smollm2-135m")                                # doctest: +SKIP
        >>> life.learn(Task.from_jsonl("refunds", "refunds.jsonl", "refunds-test.jsonl"))     # doctest: +SKIP
        >>> life.scores["preference_accuracy"].last                                           # doctest: +SKIP
        0.91
        >>> model, tokenizer = life.load()                                                    # doctest: +SKIP
    """

    def __init__(self, directory: LifeDirectory) -> None:
        self.directory = directory
        self.config = build_config(LifeConfig, directory.manifest.config, source=str(directory.path))
        self.report_to: tuple[str, ...] = self.config.report_to
        """Trackers of this process; at first those of the settings. They change nothing of what is learnt."""

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: LifeConfig | None = None,
        *,
        model: str | None = None,
        base: Base | None = None,
        **sections: Any,
    ) -> Life:
        """Makes a new life on a base model.

        Args:
            path: Directory to make; must not exist, or be empty, or hold what an interrupted call has left of this very
                life. One that is whole and has learnt nothing is taken as it is.
            config: All settings; or give ``model`` and single sections instead.
            model: The base: ``smollm2-135m``, a folder, a ``.gguf`` file or a hub id.
            base: The base, as :func:`~lifealign.model.base_model.load_base` has loaded it with the same settings, to
                save loading it again; it is copied, not changed.
            **sections: Sections of :class:`~lifealign.life.settings.LifeConfig`, such as ``method`` or ``preference``.

        Raises:
            ConfigError: If a setting does not exist or is out of range.
            ModelError: If the base is not there or cannot be used.
            LifeError: If the directory is not empty.
        """
        path = Path(path)
        if config is None:
            named = {"model": {"model_name_or_path": model}} if model else {}
            config = build_config(LifeConfig, named | sections)
        elif model or sections:
            raise ConfigError("Life.create: give either config or single sections, not both")
        finished = _require_free(path, config)
        base = load_base(config.model) if base is None else base.copied()
        if finished:
            return cls.open(path, base=base)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            base=BaseRecord(model_name_or_path=base.name, **asdict(base.identity), exact={}),
            config=config.model_dump(mode="json"),
            environment={name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
            versions=[],
        )
        life = cls(LifeDirectory(path, manifest))
        life.__dict__["_base"] = base  # it has just been loaded
        exact = life.runtime.proof.as_record()
        proven = manifest.base.model_copy(update={"exact": exact})
        life.directory.manifest = manifest.model_copy(update={"base": proven})
        notes = [f"{what.replace('_', ' ')}: {how}" for what, how in exact.items() if ":" in how]
        for note in (*notes, *base.template.notes(config.data.reasoning)):
            logger.info("%s: %s", base.name, note)
        files = life.adapter_files(FIRST, read_adapter(life.runtime.model))
        with life.directory.lock():
            write_text(path / "config.yaml", dump_config(config))
            life.directory.commit(FIRST, [], files)
        return life

    @classmethod
    def open(cls, path: str | Path, *, base: Base | None = None) -> Life:
        """Opens a life; the model is loaded when it is first needed, or copied from ``base``, as in :meth:`create`.

        Raises:
            LifeError: If the directory is not a life, or of another format version.
        """
        life = cls(LifeDirectory(Path(path), Manifest.read(Path(path))))
        if base is not None:
            life.__dict__["_base"] = life._checked(base.copied())
        return life

    def learn(self, task: Task, progress: Progress | None = None) -> Version:
        """Teaches one more task and keeps the others. A task that was learnt from the same data is not repeated.

        Args:
            task: The task.
            progress: Where to show progress, or None.

        Returns:
            The version that holds the task.

        Raises:
            LifeError: If the name is taken by other data, or another process holds the life.
            TrainingError: If training or consolidation went wrong; the life is as it was.
        """
        from lifealign.life.learn import learn_task

        return learn_task(self, task, progress)

    def load(self, version: str | None = None) -> tuple[PeftModel, PreTrainedTokenizerBase]:
        """The model as it is after a version, by default the last one, and its tokenizer.

        Raises:
            LifeError: If there is no such version, or its adapter is damaged.
            ModelError: If the base model is another than the life was made with.
        """
        install_adapter(self.runtime.model, self.adapter(version))
        return self.runtime.model, self.runtime.tokenizer

    def rollback(self, to: str) -> None:
        """Forgets every step after a version, with its replay rows and scores; ``00-base`` forgets all.

        What goes is not read, so this is the way out of damage to it. A view that cannot be brought up to date is a
        warning: the steps are gone all the same.

        Args:
            to: Name of the version that becomes the last one.

        Raises:
            LifeError: If there is no such version, it or one before it is damaged, or another process holds the life.
        """
        with self.directory.lock():
            self.directory.rollback(to)
            self.forget_loaded()
            for view in ("result.json", "report.html"):  # they tell of steps that are gone
                self._tried(partial(remove, self.directory.path, self.directory.path / view))
            self._tried(self.write_scores)

    def _tried(self, work: Callable[[], None]) -> None:
        """Does what must not keep something else from being true: a failure is a warning."""
        try:
            work()
        except LifeError as error:
            logger.warning("%s; the life itself is at %s", error, self.versions[-1].name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the life for writing; brings up to date what an interrupted run may have left behind its commit.

        Raises:
            LifeError: If another process holds the life, or has changed it since it was opened.
        """
        with self.directory.lock():
            if self.steps:
                self.write_scores()
            yield

    # -- what it knows ------------------------------------------------------------------------------------------------

    @property
    def versions(self) -> list[Version]:
        """Committed versions, oldest first; the first is the untrained adapter."""
        return self.directory.manifest.versions

    @property
    def steps(self) -> list[Version]:
        """Versions in which something was learnt."""
        return self.versions[1:]

    @property
    def scores(self) -> dict[str, ScoreMatrix]:
        """One score matrix per metric that any task has."""
        learnt_at = {task.name: step for step, version in enumerate(self.steps) for task in version.tasks}
        return matrices([record.as_step() for record in self.records], learnt_at)

    @property
    def records(self) -> list[Record]:
        """What was measured of each step."""
        return read_records(self.directory)

    def held_out(self, version: Version) -> list[HeldOut]:
        """Held-out pairs and checks of the tasks of a version."""
        return [
            HeldOut(
                task.name,
                tuple(
                    Pair.from_row(row) for row in self.directory.rows(f"tasks/{version.name}/{task.name}.test.jsonl")
                ),
                AnswerCheck(**task.check) if task.check else None,
            )
            for task in version.tasks
        ]

    def adapter(self, version: str | None = None) -> Adapter:
        """The adapter of a version, by default the last one; of L2P, its prompt pool."""
        chosen = self.versions[-1 if version is None else self.directory.index(version)]
        files = [f"versions/{chosen.name}/{file}" for file in (ADAPTER_FILE, POOL_FILE)]
        return self.directory.tensors(next((file for file in files if file in chosen.files), files[0]))

    # -- what the main path works with --------------------------------------------------------------------------------

    @cached_property
    def _base(self) -> Base:
        return self._checked(load_base(self.config.model))

    def _checked(self, base: Base) -> Base:
        """A base, once it is found to be the one that the life was made with."""
        expected = self.directory.manifest.base
        for part, found in asdict(base.identity).items():
            if found != (made_with := getattr(expected, part)):
                raise ModelError(
                    f"{self.directory.path}: found base model {base.name} with {IDENTITY_WORDS[part]} {found}, "
                    f"expected the one this life was made with, {expected.model_name_or_path} with {made_with}"
                )
        return base

    @property
    def base_fingerprint(self) -> str:
        """Content hash of the frozen base: the policy under which reference log-probabilities are kept."""
        return self.directory.manifest.base.fingerprint

    @cached_property
    def runtime(self) -> Runtime:
        """The model on its device, with the life's last adapter."""
        settings = self.config
        model = attach_lora(self._base, settings.lora, settings.seed).to(current_device())
        proof = self._base.proven(model, settings.data.max_length)
        if settings.data.reasoning == "refuse":
            require_usable_template(self._base.tokenizer, self._base.name, reasoning="refuse")
        settings.method.prepare(model, settings.seed)
        if self.versions:
            install_adapter(model, self.adapter())
            known = self.directory.manifest.base.exact
            if known != (found := proof.as_record()):
                logger.warning("%s: %s, other than when the life was made: %s", self._base.name, found, known)
        data = settings.data
        return Runtime.prepare(
            model, self._base.tokenizer, proof, share_prefix=data.share_prefix, reasoning=data.reasoning
        )

    @cached_property
    def method(self) -> Method:
        """The life's method, with the state it had after the last step."""
        method = type(self.config.method)(**self.config.method.model_dump())  # without what a failed step left in it
        if self.steps:
            name = self.steps[-1].name
            tensors = self.directory.tensors(f"memory/{name}.method.safetensors")
            saved = saved_method(self.directory, name)
            self._require_same_method(name, saved.method)
            try:
                method.load_state(MethodState(tensors, saved.values))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise LifeError(
                    f"{self.directory.path}: found no state of {method.title} that it can take back in "
                    f"tasks/{name}/method.json and memory/{name}.method.safetensors ({type(error).__name__}: {error}), "
                    "expected what a step writes; roll back to a version before it"
                ) from error
        return method

    def _require_same_method(self, step: str, saved: dict[str, Any] | None) -> None:
        """Refuses a method's state that another configuration has written; lives of 0.1 did not say which it was."""
        current = self.config.model_dump(mode="json")["method"]
        if saved is not None and saved != current:
            shown = "; ".join(differences(saved, current))
            raise LifeError(
                f"{self.directory.path}: found the method's state of step {step} saved by another configuration "
                f"({shown}), expected that of life.json; the settings of a life do not change"
            )

    @cached_property
    def memory(self) -> LongTermMemory:
        """Refined updates of all steps."""
        memory = LongTermMemory()
        for version in self.steps:
            updates: dict[str, dict[str, Tensor]] = {}
            for name, tensor in self.directory.tensors(f"memory/{version.name}.safetensors").items():
                segment, factor = name.split("/", 1)
                updates.setdefault(segment, {})[factor] = tensor
            for segment in (segment.label for segment in self.config.method.segments):
                if segment in updates:
                    memory.remember(updates[segment])
        return memory

    @cached_property
    def replay(self) -> ReplayBuffer:
        """What is remembered of finished tasks."""
        buffer = ReplayBuffer(self.replay_config.capacity)
        for version in self.steps:
            rows = self.directory.rows(f"replay/{version.name}.jsonl")
            for task in version.tasks:
                buffer.tasks[task.name] = tuple(Pair.from_row(row) for row in rows if row["task"] == task.name)
        return buffer

    @property
    def replay_config(self) -> ReplayConfig:
        """The configured replay, or the method's default: on with its defaults, or off."""
        if self.config.replay is not None:
            return self.config.replay
        return ReplayConfig() if self.config.method.replays else ReplayConfig(fraction=0.0, capacity=0)

    @cached_property
    def reference(self) -> ReferenceCache:
        """Reference log-probabilities, kept for the life."""
        return ReferenceCache(self.directory.inside(f"{CACHE}/{REFERENCE_FILE}"))

    @cached_property
    def answers(self) -> AnswerCache:
        """Generated answers, kept for the life."""
        return AnswerCache(self.directory.inside(f"{CACHE}/{ANSWERS_FILE}"))

    def evaluator(self, settings: EvaluationConfig | None = None) -> Evaluator:
        """Scores the life's model as it is now; by default under the life's own settings."""
        return Evaluator(
            self.runtime,
            self.reference,
            self.answers,
            settings or self.config.evaluation,
            self.config.preference.beta,
            self.config.data.max_length,
            self.base_fingerprint,
            seed=self.config.seed,
        )

    def borrow_cache(self, folder: Path) -> None:
        """Takes over what other lives have computed and lent; keys name base and content, so nothing wrong is found."""
        self.reference.update(ReferenceCache(folder / REFERENCE_FILE))
        self.answers.update(AnswerCache(folder / ANSWERS_FILE))

    def lend_cache(self, folder: Path) -> None:
        """Adds what this life has computed to a folder that others borrow from; not while another life does it."""
        with suppress(LifeError), exclusive_lock(folder):
            reference, answers = ReferenceCache(folder / REFERENCE_FILE), AnswerCache(folder / ANSWERS_FILE)
            reference.update(self.reference)
            answers.update(self.answers)
            reference.save()
            answers.save()

    def adapter_files(self, version: str, adapter: Adapter) -> dict[str, Any]:
        """Content of a version's folder, by path inside the life: a plain PEFT adapter, or a prompt pool."""
        folder = f"versions/{version}"
        if (pool := prompt_pool(self.runtime.model)) is not None:  # nothing that PEFT could load, so nothing it would
            return {f"{folder}/{POOL_FILE}": adapter, f"{folder}/prompt_pool.json": pool.shape()}
        config = self.runtime.model.peft_config["default"].to_dict()
        base = self.directory.manifest.base
        config |= {
            "base_model_name_or_path": base.model_name_or_path,
            "revision": base.revision,
            "inference_mode": True,
        }
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        return {f"{folder}/adapter_config.json": plain, f"{folder}/{ADAPTER_FILE}": adapter}

    def write_scores(self) -> None:
        """Writes ``scores.json``, a view for people and scripts of what the versions hold."""
        view = {metric: matrix.as_dict() for metric, matrix in self.scores.items()}
        write_json(self.directory.path / "scores.json", view)

    def forget_loaded(self) -> None:
        """Drops what was loaded from disk, so that it is read again: after a rollback, or a step that failed."""
        for name in ("method", "memory", "replay"):
            self.__dict__.pop(name, None)
        if "runtime" in self.__dict__:
            install_adapter(self.runtime.model, self.adapter())


def _require_free(path: Path, config: LifeConfig) -> bool:
    """Refuses a place where something is, except what an interrupted ``create`` of the same life has left there.

    Returns:
        Whether that is the finished life: the process ended after the last rename, before it could say so.
    """
    try:
        found = {entry for entry in os.listdir(path) if not TEMPORARY.search(entry)}
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        found = {path.name}
    except OSError as error:
        raise LifeError(f"{path}: could not be read: {error.strerror}") from error
    ours = {LOCK, LOCK_HOLDER, "config.yaml", "versions"}
    if not found or (LOCK in found and found <= ours):
        return False
    if MANIFEST in found and found <= {*ours, MANIFEST, CACHE} and _is_finished(path, config):
        return True
    raise LifeError(f"{path}: found a file or a directory with something in it, expected an empty or new one")


def _is_finished(path: Path, config: LifeConfig) -> bool:
    """Whether a life is there that has these settings, has learnt nothing, and is whole."""
    with suppress(LifeError, ConfigError):
        life = Life.open(path)
        life.directory.verify(life.versions)
        return life.config == config and not life.steps
    return False
