"""A life: everything a model has learnt so far, in one directory. Create it, open it, learn, load, roll back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifealign.data.task import Task
from lifealign.errors import ConfigError, LifeError
from lifealign.evaluation.matrix import ScoreMatrix
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.life.disk.manifest import Manifest, Version
from lifealign.life.disk.measurements import Record, read_records, score_matrices, write_scores
from lifealign.life.disk.progress_files import remove_checkpoint
from lifealign.life.free_place import require_free
from lifealign.life.settings import STORED_AUTO, LifeConfig, ShownConfig
from lifealign.life.unfinished import locked
from lifealign.settings.section import build_config
from lifealign.storage.home import with_home
from lifealign.storage.inside import remove

# Modules that need the model are imported when they are used, so that looking at a life does not import torch.
if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from lifealign.data.pair import Message, Pair
    from lifealign.life.compose import Composition
    from lifealign.life.export import Export, Form, WrittenDtype
    from lifealign.life.recall import Expressed, Patterns, Recall
    from lifealign.life.workspace import Workspace
    from lifealign.model.base_model import Base
    from lifealign.training.listeners import Listener

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
        self._recalled: tuple[Manifest | None, Patterns | None] = (None, None)

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

        A dtype of ``auto`` is settled here and now, and the life keeps it: a base in another dtype is another base.

        Args:
            path: Directory to make; it must not exist, or be empty, or hold what an interrupted call left of this same
                life. If it holds the same life, complete and without anything learnt, that is used.
            config: All settings; alternatively give ``model`` and single sections.
            model: The base: ``smollm2-135m``, a folder, a ``.gguf`` file or a hub id.
            base: The base, as :func:`~lifealign.model.base_model.load_base` has loaded it with the same settings, to
                save loading it again; it is copied, not changed.
            **sections: Sections of :class:`~lifealign.life.settings.LifeConfig`, such as ``method`` or ``preference``.

        Raises:
            ConfigError: If a setting does not exist or is out of range.
            ModelError: If the base cannot be found or used.
            LifeError: If the directory is not empty.
        """
        from lifealign.life.workspace import Workspace
        from lifealign.model.base_model import load_base

        path = with_home(path)
        if config is None:
            named = {"model": {"model_name_or_path": model}} if model else {}
            config = build_config(LifeConfig, named | sections)
        elif model or sections:
            raise ConfigError("Life.create: found config beside model or single sections, expected one or the other")
        config = config.of_a_new_life()
        if require_free(path, config):
            return cls.open(path, base=base)
        base = load_base(config.model) if base is None else base.copied()
        config = config.settled(base.dtype)
        work = Workspace.create(path, config, base)
        life = cls(work.directory)
        life.__dict__ |= {"config": config, "workspace": work}
        return life

    @classmethod
    def open(cls, path: str | Path, *, base: Base | None = None) -> Life:
        """Opens a life; the model is loaded when it is first needed, or copied from ``base``, as in :meth:`create`.

        Raises:
            LifeError: If the directory is not a life, or has another format version.
            ConfigError: If its settings are not those of a life.
            ModelError: If ``base`` is not the one that the life was made with.
        """
        path = with_home(path)
        life = cls(LifeDirectory(path, Manifest.read(path)))
        assert life.shown  # finds settings that cannot be read now
        if base is not None:
            from lifealign.life.workspace import Workspace

            life.__dict__["workspace"] = Workspace(life.directory, life.config, base.copied())
        return life

    @classmethod
    def adopt(
        cls,
        path: str | Path,
        adapter: str | Path,
        tasks: Sequence[Task],
        config: LifeConfig,
        *,
        before: str | Path | None = None,
        base: Base | None = None,
        listener: Listener | None = None,
    ) -> Life:
        """Begins a life with a LoRA adapter that another trainer has made.

        The adapter becomes the first version, byte for byte in its factors, and its tasks are scored, remembered for
        replay and given keys and gates as if they had been learnt here. Rank, scaling and target modules are the
        adapter's. What its training has changed is remembered as it is: the whole of ``lora_B``, and of ``lora_A`` the
        change from ``before``; without ``before`` nobody knows how it was drawn, so its change is taken to be none.

        Args:
            path: Directory of the life; new or empty, or what an interrupted call has left.
            adapter: Folder of the adapter, as PEFT saves it.
            tasks: What it was taught, all of it in one step. Gates that are set aside from training pairs are of
                prompts that it may have been trained on; better are pairs that it was not.
            config: All settings of the life, the base model among them.
            before: Folder of the adapter that its training began from, or None.
            base: The base, if it is loaded already; it is copied, not changed.
            listener: Follows what happens, or None.

        Raises:
            ConfigError: If there is no task, the settings say another rank, scaling or target modules than the adapter
                has, or versions of the method are not sums of updates.
            DataError: If the pairs of a task cannot be used.
            ModelError: If the adapter is missing, no plain LoRA, scaled in a way that the settings cannot say, or does
                not fit the base.
            LifeError: If the directory is not empty, or a file cannot be written.
        """
        from lifealign.life.adopt import adopt_life
        from lifealign.model.peft_folder import read_peft_folder

        start = None if before is None else read_peft_folder(with_home(before))
        found = read_peft_folder(with_home(adapter))
        work = adopt_life(with_home(path), config, found, tasks, before=start, base=base, listener=listener)
        life = cls(work.directory)
        life.__dict__ |= {"config": work.config, "workspace": work}
        return life

    def learn(self, task: Task, listener: Listener | None = None, *, force: bool = False) -> Version:
        """Teaches one more task and keeps the others. A task already learnt from the same data is not repeated.

        Args:
            task: The task.
            listener: Follows what happens, such as a progress bar, or None.
            force: Whether to keep the task although it costs earlier ones more than ``retention: enforce`` allows.

        Returns:
            The version that holds the task.

        Raises:
            ConfigError: If it supersedes a task that was not learnt before, or a gate is too small to enforce.
            Refused: If ``retention: enforce`` does not accept what it costs earlier tasks; the life is as it was.
            DataError: If none of its pairs can be used, or none of its held-out pairs can be scored.
            LifeError: If a task of this name was learnt from other data, or another process holds the life.
            TrainingError: If training or consolidation went wrong; the life is as it was.
        """
        from lifealign.life.learn import learn_task

        return learn_task(self.workspace, task, listener, force=force)

    def load(self, version: str | Composition | None = None) -> tuple[PeftModel, PreTrainedTokenizerBase]:
        """The model as it is after a version, by default the last one, or as composed; and its tokenizer.

        Raises:
            LifeError: If there is no such version, or its adapter is damaged.
            ModelError: If the base model is not the one that the life was made with.
        """
        from lifealign.life.disk.learnt import read_adapter_of
        from lifealign.model.adapter import install_adapter

        runtime = self.workspace.runtime
        if version is None or isinstance(version, str):
            install_adapter(runtime.model, read_adapter_of(self.directory, version))
        else:
            install_adapter(runtime.model, version.adapter)
        return runtime.model, runtime.tokenizer

    def compose(
        self, *, without: Collection[str] = (), weights: Mapping[str, float] | None = None, as_of: str | None = None
    ) -> Composition:
        """An adapter of any of the tasks that were learnt, each with a weight, of the rank that versions have.

        The untrained adapter and the weighted updates of all steps are added up, factor by factor. What equals a
        version is that version, byte for byte; anything else is a model that the life never was and that nothing is
        known of until it is scored. A task that is left out is not unlearnt: later ones were learnt from a model that
        knew it.

        Args:
            without: Names of tasks to leave out.
            weights: Weights of other tasks' updates by their names, any finite number; 1 for those not named.
            as_of: The version after which nothing is taken; None for the last one.

        Raises:
            ConfigError: If a task is named that was not learnt by then, or a weight is not finite.
            LifeError: If versions of the life's method are not sums of updates, there is no such version, or a file is
                damaged.

        Example:
            >>> without = Life.open("my-bot").compose(without=["greet"])                      # doctest: +SKIP
            >>> model, tokenizer = life.load(without)                                         # doctest: +SKIP
        """
        from lifealign.life.compose import compose_life

        return compose_life(self.workspace, without=without, weights=weights, as_of=as_of)

    def export(
        self,
        out: str | Path,
        *,
        form: Form = "adapter",
        without: Collection[str] = (),
        weights: Mapping[str, float] | None = None,
        as_of: str | None = None,
        dtype: WrittenDtype | None = None,
    ) -> Export:
        """Writes a version, or a composition, for other programs, to a folder that appears whole or not at all.

        Args:
            out: A folder that does not exist or is empty, outside the life.
            form: ``adapter``: a folder for PEFT. ``merged``: a whole model for transformers. ``gguf``: a LoRA file for
                llama.cpp.
            without: Names of tasks to leave out, as in :meth:`compose`.
            weights: Weights of other tasks' updates, as there.
            as_of: The version; None for the last one.
            dtype: Dtype of what is written; None for the base's if merged, else float32.

        Raises:
            ConfigError: If a value is not one of those above.
            LifeError: If nothing was learnt by then, the method has no adapter, or the folder cannot be used.
            ModelError: If the base cannot take this form.

        Example:
            >>> Life.open("my-bot").export("merged", form="merged")                            # doctest: +SKIP
        """
        from lifealign.life.export import export_life

        return export_life(
            self.workspace, with_home(out), form=form, without=without, weights=weights, as_of=as_of, dtype=dtype
        )

    def recall(self, prompt: str | Sequence[Message], *, alpha: float = 0.05) -> Recall:
        """Which tasks a prompt belongs to, and which version should answer it.

        A prompt is compared with the prompts of each task in the frozen base's middle layer. A task whose prompts
        cannot be told from those of others is a house rule, which every prompt recalls; others are domains, of which a
        prompt recalls the one that fits best, or none. A prompt of a domain is answered by the version that does best
        on the domain's gate since it was learnt, among those that know every house rule; any other by the last one.

        Args:
            prompt: A user's message, or a conversation that ends with the user.
            alpha: Chance with which a prompt of a known task may be called unknown to it, in (0, 1).

        Raises:
            ConfigError: If the prompt is empty or ``alpha`` is out of range.
            LifeError: If nothing was learnt, or nothing is kept of the prompts of a task.
            ModelError: If the prompt is longer than ``data.max_length``, or the model does not show its hidden states.

        Example:
            >>> Life.open("my-bot").recall("Where is my parcel?").version                     # doctest: +SKIP
            '03-shipping'
        """
        from lifealign.life.recall import patterns_of, recall_prompt

        as_of, patterns = self._recalled
        if patterns is None or as_of is not self.directory.manifest:  # something was learnt or rolled back since
            as_of, patterns = self.directory.manifest, patterns_of(self.workspace)
            self._recalled = as_of, patterns
        return recall_prompt(self.workspace, patterns, prompt, alpha)

    def recall_examples(self, pairs: Sequence[Pair]) -> list[Expressed]:
        """Which stored patterns some preferences express, best first: by the implicit reward of each step.

        A step's reward of an answer is β times the log-probability it has gained in that step. How far a step explains
        a preference is the reward of the chosen answer minus that of the rejected one.

        Args:
            pairs: The preferences, for any prompts.

        Raises:
            DataError: If none of them fits in ``data.max_length``.
            LifeError: If nothing was learnt, or a version is damaged.
        """
        from lifealign.life.recall import recall_examples

        return recall_examples(self.workspace, pairs)

    def forget(
        self,
        task: str,
        *,
        given: Collection[Task] = (),
        listener: Listener | None = None,
        force: bool = False,
    ) -> list[Version]:
        """Forgets a task as if it had never been learnt: what was learnt after it is learnt again without it.

        On one machine, with the same versions of the libraries, the life is then, byte for byte and but for times, the
        one that never learnt it. Until the very end it stays as it was, and an interrupted call goes on where it
        stopped. Caches, refusals, the page and the result file go, because they may quote the task. What a copy of the
        life, a tracker or the user's cache of the base's answers holds is not touched.

        Args:
            task: Name of the task.
            given: Later tasks as they were taught, for a life that has not kept them (``keep_training_pairs``).
            listener: Follows what is learnt again, or None.
            force: As in :meth:`learn`, for each of them.

        Returns:
            The versions that the life has now.

        Raises:
            ConfigError: If no such task was learnt.
            LifeError: If what a later task was taught with is neither kept nor given, or another process holds the
                life.
            Refused: If ``retention: enforce`` does not accept a later task without this one; the life is as it was.
            TrainingError: If training went wrong; the life is as it was.
        """
        from lifealign.life.forget import forget_task

        return forget_task(self.workspace, task, {one.name: one for one in given}, listener, force=force)

    def rollback(self, to: str) -> None:
        """Forgets every step after a version, with its replay rows and scores; ``00-base`` forgets all.

        The forgotten files are not read, so a rollback also removes damaged ones. If a view cannot be updated
        afterwards, that is only a warning: the steps are gone all the same.

        Args:
            to: Name of the version that becomes the last one.

        Raises:
            LifeError: If there is no such version, it or one before it is damaged, or another process holds the life.
        """
        with locked(self.directory):
            self.directory.rollback(to)
            remove_checkpoint(self.directory)
            if "workspace" in self.__dict__:
                self.workspace.forget_loaded()
            for view in (names.RESULT, names.PAGE):  # they describe steps that are gone
                self._tried(partial(remove, self.directory.path, self.directory.path / view))
            self._tried(partial(write_scores, self.directory))

    def _tried(self, work: Callable[[], None]) -> None:
        """Runs follow-up work whose failure must not undo what is done: it becomes a warning."""
        try:
            work()
        except LifeError as error:
            logger.warning("%s; the life itself is rolled back to %s", error, self.versions[-1].name)

    @property
    def versions(self) -> list[Version]:
        """Committed versions, oldest first; the first is the untrained adapter."""
        return self.directory.versions

    @property
    def steps(self) -> list[Version]:
        """Versions in which something was learnt."""
        return self.directory.steps

    @property
    def scores(self) -> dict[str, ScoreMatrix]:
        """One score matrix per metric that any task was scored on."""
        return score_matrices(self.directory)

    @property
    def records(self) -> list[Record]:
        """What was measured of each step."""
        return read_records(self.directory)

    @cached_property
    def shown(self) -> ShownConfig:
        """The settings, with the method as name and options; reading them does not import torch."""
        return build_config(ShownConfig, self.directory.manifest.config, source=str(self.directory.path)).settled(
            STORED_AUTO
        )

    @cached_property
    def config(self) -> LifeConfig:
        """The settings, with the method itself.

        Raises:
            ConfigError: If they are not those of a life.
        """
        return build_config(LifeConfig, self.directory.manifest.config, source=str(self.directory.path)).settled(
            STORED_AUTO
        )

    @cached_property
    def workspace(self) -> Workspace:
        """The life opened for work: model, method, memory, replay and caches, each loaded when it is first needed."""
        from lifealign.life.workspace import Workspace

        return Workspace(self.directory, self.config)
