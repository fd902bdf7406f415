"""A life opened for work: its model, its method, its memory and its caches, each loaded when it is first needed."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple
from functools import cached_property
from pathlib import Path

import torch
import xxhash

from lifealign.data.replay import ReplayBuffer
from lifealign.errors import LifeError, ModelError
from lifealign.evaluation.evaluator import Evaluator
from lifealign.evaluation.settings import EvaluationConfig
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.learnt import adapter_files, read_adapter_of, read_method_state, read_replay
from lifealign.life.disk.manifest import FORMAT_VERSION, BaseRecord, Manifest, Version
from lifealign.life.disk.measurements import refresh_scores
from lifealign.life.disk.memory import read_memory
from lifealign.life.processes import led_runtime
from lifealign.life.settings import LifeConfig
from lifealign.life.unfinished import locked
from lifealign.memory.long_term import LongTermMemory
from lifealign.memory.update import Adapter
from lifealign.methods.base import Method
from lifealign.model.adapter import install_adapter, read_adapter
from lifealign.model.answer_cache import AnswerCache
from lifealign.model.base_model import Base, load_base
from lifealign.model.machine import this_processor
from lifealign.model.reference import ReferenceCache
from lifealign.model.runtime import Runtime
from lifealign.settings.section import dump_config
from lifealign.storage.files import make_private_folder, write_text
from lifealign.storage.lock import exclusive_lock
from lifealign.storage.user_cache import user_cache

logger = logging.getLogger(__name__)

IDENTITY_WORDS = {
    "fingerprint": "fingerprint",
    "tokenizer": "a tokenizer of fingerprint",
    "chat_template": "a chat template of fingerprint",
    "revision": "revision",
}


class Workspace:
    """Everything that learning and evaluating work with.

    Args:
        directory: The life's files.
        config: The life's settings.
        base: The base, as :func:`~lifealign.model.base_model.load_base` has loaded it; it is used, not copied. None
            loads it when it is first needed.

    Raises:
        ModelError: If ``base`` is not the one that the life was made with.
    """

    def __init__(self, directory: LifeDirectory, config: LifeConfig, base: Base | None = None) -> None:
        self.directory = directory
        self.config = config
        self.report_to: tuple[str, ...] = config.report_to
        """Trackers of this process, by default those of the settings. They do not affect what is learnt."""
        self.sharding = config.device.sharding
        """Whether the processes of this run hold the base together; by default what the settings say."""
        if base is not None:
            self.__dict__["base"] = self._checked(base)

    @classmethod
    def create(cls, path: Path, config: LifeConfig, base: Base, start: Adapter | None = None) -> Workspace:
        """Makes the directory of a new life and commits the untrained adapter; see :meth:`lifealign.Life.create`.

        Args:
            path: The directory.
            config: All settings.
            base: The base.
            start: The untrained adapter; None draws one.
        """
        unproven = BaseRecord(model_name_or_path=base.name, **asdict(base.identity), exact={})
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            base=unproven,
            config=config.model_dump(mode="json"),
            environment={name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
            versions=[],
        )
        work = cls(LifeDirectory(path, manifest), config, base)
        exact = work.runtime.proof.as_record()
        proven = unproven.model_copy(update={"exact": exact})
        work.directory.manifest = manifest.model_copy(update={"base": proven})
        notes = [f"{what.replace('_', ' ')}: {how}" for what, how in exact.items() if ":" in how]
        for note in (*notes, *base.template.notes(config.data.reasoning)):
            logger.info("%s: %s", base.name, note)
        model = work.runtime.model
        if start is not None:
            install_adapter(model, start)
        files = adapter_files(names.FIRST, model, read_adapter(model), proven)
        make_private_folder(path)  # a life holds what people have said
        with work.directory.lock():
            write_text(path / names.CONFIG, dump_config(config))
            work.directory.commit(names.FIRST, [], files)
        return work

    def at(self, directory: LifeDirectory) -> Workspace:
        """The same model over the life as another look at its directory has found it."""
        again = Workspace(directory, self.config)
        again.__dict__ |= {name: self.__dict__[name] for name in ("base", "runtime") if name in self.__dict__}
        return again

    @property
    def steps(self) -> list[Version]:
        """Versions in which something was learnt, oldest first."""
        return self.directory.steps

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the life for writing, and updates ``scores.json``, which an interrupted run may have left out of date.

        Raises:
            LifeError: If another process holds the life, or has changed it since it was opened.
        """
        with locked(self.directory):
            if self.steps:
                refresh_scores(self.directory)
            yield

    # -- the model ----------------------------------------------------------------------------------------------------

    @cached_property
    def base(self) -> Base:
        """The base model, frozen: of a hub model the commit that the life was made with, wherever its branch is now."""
        made_with = self.directory.manifest.base.revision
        return self._checked(load_base(self.config.model.model_copy(update={"revision": made_with})))

    def _checked(self, base: Base) -> Base:
        """The base, once checked to be the one that the life was made with."""
        expected = self.directory.manifest.base
        for part, found in asdict(base.identity).items():
            made_with = getattr(expected, part)
            if part == "revision" and made_with is None:
                continue  # made when commits were not recorded; its weights are compared all the same
            if found != made_with:
                raise ModelError(
                    f"{self.directory.path}: found base model {base.name} with {IDENTITY_WORDS[part]} {found}, "
                    f"expected the one this life was made with, {expected.model_name_or_path} with {made_with}"
                )
        return base

    @property
    def base_fingerprint(self) -> str:
        """Content hash of the frozen base, under which its reference log-probabilities are cached."""
        return self.directory.manifest.base.fingerprint

    @cached_property
    def runtime(self) -> Runtime:
        """The model on its device, with the adapter of the life's last version."""
        runtime = led_runtime(self.config, self.base, self.sharding)
        if self.directory.versions:
            install_adapter(runtime.model, read_adapter_of(self.directory))
            known, found = self.directory.manifest.base.exact, runtime.proof.as_record()
            if any(found.get(what) != how for what, how in known.items()):  # it may have been asked less
                logger.warning("%s: found %s, expected what the life recorded: %s", self.base.name, found, known)
        return runtime

    # -- what it remembers --------------------------------------------------------------------------------------------

    @cached_property
    def method(self) -> Method:
        """The life's method, with the state it had after the last step."""
        method = type(self.config.method)(**self.config.method.model_dump())  # new, without what a failed step left
        if self.steps:
            step = self.steps[-1].name
            state = read_method_state(self.directory, step, self.config.model_dump(mode="json")["method"])
            try:
                method.load_state(state)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise LifeError(
                    f"{self.directory.path}: found no state that {method.title} can restore in "
                    f"{names.method_values(step)} and {names.method_tensors(step)} ({type(error).__name__}: {error}), "
                    "expected what a step writes; roll back to a version before it"
                ) from error
        return method

    @cached_property
    def memory(self) -> LongTermMemory:
        """Refined updates of all steps."""
        method = self.config.method
        return read_memory(self.directory, method.segments, method.updates_kept)

    @cached_property
    def replay(self) -> ReplayBuffer:
        """The remembered pairs of finished tasks."""
        return read_replay(self.directory, self.config.replay_or_default.capacity)

    def remember_instead(self, updates: Sequence[Adapter]) -> None:
        """Remembers these refined updates in place of those of the step that is being learnt."""
        self.__dict__.pop("memory", None)
        for update in updates:
            self.memory.remember(update)

    def forget_loaded(self) -> None:
        """Drops what was loaded from disk, so that it is read again after a rollback or a failed step."""
        for name in ("method", "memory", "replay"):
            self.__dict__.pop(name, None)
        if "runtime" in self.__dict__:
            install_adapter(self.runtime.model, read_adapter_of(self.directory))

    # -- what it has computed -----------------------------------------------------------------------------------------

    @cached_property
    def reference(self) -> ReferenceCache:
        """Reference log-probabilities, cached in the life."""
        own = self._cache(names.REFERENCE_CACHE, names.OLDER_REFERENCE_CACHE)
        return ReferenceCache(own, base=self.base_fingerprint, shared=self.of_base / own.name)

    @cached_property
    def answers(self) -> AnswerCache:
        """Generated answers, cached in the life."""
        own = self._cache(names.ANSWER_CACHE, names.OLDER_ANSWER_CACHE)
        return AnswerCache(own, base=self.base_fingerprint, shared=self.of_base / own.name)

    def _cache(self, name: str, older: str) -> Path:
        """The path of a cache; refuses it, or the one in the form of earlier versions beside it, if it is a link."""
        self.directory.inside(older)
        return self.directory.inside(name)

    @property
    def of_base(self) -> Path:
        """The user's folder for what the frozen base computes, whichever life asks for it.

        Another processor, number of threads, layout of batches or version of a library may round otherwise, and then
        has a folder of its own.
        """
        runtime = self.runtime
        depends_on = [
            *astuple(self.base.identity),
            str(this_processor()),
            str(runtime.device),
            torch.get_num_threads(),
            runtime.layout,
            runtime.proof.padded,
            *(importlib.metadata.version(library) for library in ("torch", "transformers")),
        ]
        return user_cache() / "bases" / xxhash.xxh3_128_hexdigest(repr(depends_on).encode())

    def evaluator(self, settings: EvaluationConfig | None = None) -> Evaluator:
        """An evaluator of the life's model as it is now; by default under the life's own settings."""
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
        """Adds what other lives have computed and lent; keys include base and content, so no wrong entry can match."""
        reference, answers = _caches(folder)
        self.reference.update(reference)
        self.answers.update(answers)

    def lend_cache(self, folder: Path) -> None:
        """Adds what this life has computed to a folder that others borrow from; skipped while another life does so."""
        with suppress(LifeError), exclusive_lock(folder):
            reference, answers = _caches(folder)
            reference.update(self.reference)
            answers.update(self.answers)


def _caches(folder: Path) -> tuple[ReferenceCache, AnswerCache]:
    """Caches in a folder that several lives share."""
    return ReferenceCache(folder / Path(names.REFERENCE_CACHE).name), AnswerCache(
        folder / Path(names.ANSWER_CACHE).name
    )
