"""How far a step has been trained, kept on disk while it is, so that the same command goes on from there."""

from __future__ import annotations

import importlib.metadata
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import torch
import xxhash

from lifealign.errors import LifeError
from lifealign.life.disk.progress_files import Checkpoint, read_checkpoint, remove_checkpoint, write_checkpoint
from lifealign.life.hold_back import HeldBack
from lifealign.life.workspace import Workspace
from lifealign.memory.long_term import Consolidation
from lifealign.memory.update import Adapter
from lifealign.methods.base import Segment
from lifealign.model.adapter import read_adapter, write_adapter
from lifealign.model.machine import this_processor
from lifealign.training.objectives import StageName
from lifealign.training.stage_state import LogRow, StageState, copied

logger = logging.getLogger(__name__)

LEARNT_FROM = (".safetensors", ".gate.jsonl", ".select.jsonl", "method.json")
"""Ends of the names of committed files that decide what a step learns; scores and views do not."""


class Progress:
    """The stages of a step that are still to be trained, and everything that is needed to go on within one.

    Stages that an interrupted run has finished are passed over, and the one that it was in goes on after the optimizer
    step that was last kept. On a CPU, with the same versions of libraries and the same number of threads, what is
    learnt is the same to the last bit as if nothing had happened.

    Attributes:
        logs: Rows of the finished stages.
        consolidated: Results of the finished segments.
        seconds: Time that interrupted runs have spent on the step.

    Args:
        work: The life, locked.
        held_back: The step, and what it holds back.
        say: Called with a line if there is something to go on from, or something that cannot be used.
    """

    def __init__(self, work: Workspace, held_back: HeldBack, say: Callable[[str], None]) -> None:
        self._work, self._began_at = work, time.monotonic()
        self._step = held_back.step.name
        self._content, self._machine = _content(work, held_back), _machine(work)
        self._found = self._usable(say)
        self._unsaved, self._signal = 0, 0
        found = self._found
        self.logs: dict[StageName, list[LogRow]] = {}
        self.consolidated: dict[str, Consolidation] = {}
        self.seconds = 0.0
        if found is not None:
            self.seconds = found.seconds
            self.logs = {stage: [dict(row) for row in rows] for stage, rows in found.logs.items()}  # type: ignore[misc]
            self.consolidated = dict(found.consolidated)
            for result in self.consolidated.values():
                work.memory.remember(result.update)
        self._segment = self._stage = 0
        self._before: Adapter = {}

    def segments(self) -> Iterator[tuple[Segment, Adapter]]:
        """The segments that are not finished, each with the adapter as it was when the segment began."""
        first = self._found.segment if self._found is not None else 0
        for place, segment in list(enumerate(self._work.method.segments))[first:]:
            self._segment = place
            self._before = read_adapter(self._work.runtime.model) if self._found is None else self._found.before
            yield segment, self._before

    def stages(self, segment: Segment) -> Iterator[StageName]:
        """The stages of a segment that are not finished; the model is as it was when the stage began."""
        model, method = self._work.runtime.model, self._work.method
        first = self._found.stage if self._found is not None else 0
        for place, stage in list(enumerate(segment.stages))[first:]:
            self._stage = place
            if self._found is not None:
                write_adapter(model, self._found.start)
                method.load_progress(self._found.began)
            self._start, self._began = read_adapter(model), copied(method.progress())
            yield stage
            self._found = None

    @property
    def resumed(self) -> StageState | None:
        """The state that the stage goes on from; None begins it."""
        return None if self._found is None else self._found.within

    @contextmanager
    def running(self) -> Iterator[None]:
        """While a stage takes its steps, Ctrl-C and SIGTERM end it after the one under way; a second Ctrl-C at once.

        A program's own handlers stay, and so does what a thread other than the main one cannot change.
        """
        usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        main = threading.current_thread() is threading.main_thread()
        ours = [number for number, handler in usual.items() if main and signal.getsignal(number) == handler]

        def asked(number: int, frame: FrameType | None) -> None:
            if self._signal:
                self._end()
            self._signal = number

        try:
            for number in ours:
                signal.signal(number, asked)
            yield
        finally:
            for number in ours:
                signal.signal(number, usual[number])
        if self._signal:  # it came after the last step
            self._end()

    def keep(self, state: Callable[[], StageState]) -> None:
        """Writes a checkpoint every ``save_steps`` optimizer steps, and when the process was asked to end.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
            SystemExit: After SIGTERM.
        """
        self._unsaved += 1
        every = self._work.config.save_steps
        if not self._signal and (every is None or self._unsaved < every):
            return
        self._unsaved = 0
        kept = Checkpoint(
            step=self._step,
            content=self._content,
            machine=self._machine,
            segment=self._segment,
            stage=self._stage,
            before=self._before,
            start=self._start,
            began=self._began,
            within=state(),
            logs={str(stage): rows for stage, rows in self.logs.items()},
            consolidated=self.consolidated,
            seconds=self.seconds + time.monotonic() - self._began_at,
        )
        try:
            write_checkpoint(self._work.directory, kept)
        except LifeError as error:  # a full disk must not end a training that may yet have room to be committed
            logger.warning("%s; training goes on, and what comes now is lost if it is interrupted", error)
        if self._signal:
            self._end()

    def _end(self) -> NoReturn:
        if self._signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def finish(self) -> None:
        """Removes the checkpoint, now that the step is committed."""
        remove_checkpoint(self._work.directory)

    def _usable(self, say: Callable[[str], None]) -> Checkpoint | None:
        found = read_checkpoint(self._work.directory)
        if found is None or found.step in {version.name for version in self._work.directory.versions}:
            remove_checkpoint(self._work.directory)
            return None
        if found.content != self._content:
            say("what an interrupted run had learnt is of other data or settings, or was learnt from another version")
            remove_checkpoint(self._work.directory)
            return None
        done = sum(map(len, found.logs.values())) + len(found.within.log)
        same = found.machine == self._machine
        more = "" if same else "; numbers round otherwise here, so the result will be as good, and not the same bits"
        say(f"goes on after {done} optimizer steps of an interrupted run{more}")
        return found


def _content(work: Workspace, held_back: HeldBack) -> str:
    """Hash of everything that decides what is learnt: tasks, settings, and what the life has learnt before."""
    learnt = [
        (file, record.sha256)
        for version in work.directory.versions
        for file, record in sorted(version.files.items())
        if file.endswith(LEARNT_FROM)
    ]
    besides = {"report_to", "evaluation", "save_steps", "license", "device"}
    settings = work.config.model_dump(mode="json", exclude=besides)
    tasks = [(task.name, task.data_hash) for task in held_back.given]
    packages = [importlib.metadata.version(name) for name in ("lifealign",)]
    return _hash((work.base_fingerprint, learnt, settings, tasks, packages))


def _machine(work: Workspace) -> str:
    """Hash of what decides how numbers round."""
    versions = [importlib.metadata.version(name) for name in ("torch", "transformers", "peft")]
    several = [work.runtime.processes] if work.runtime.processes > 1 else []  # they add up in another order
    return _hash((str(this_processor()), str(work.runtime.device), torch.get_num_threads(), versions, *several))


def _hash(value: Any) -> str:
    return xxhash.xxh3_128_hexdigest(repr(value).encode())
