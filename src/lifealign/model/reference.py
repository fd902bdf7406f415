"""Reference log-probabilities: computed once per pair and policy, and kept on disk by content hash."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from lifealign.errors import LifeError, TrainingError
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair
from lifealign.storage.kept_rows import KeptRows
from lifealign.storage.lock import exclusive_lock
from lifealign.storage.tensors import read_tensors

logger = logging.getLogger(__name__)

LOST = "its log-probabilities are computed again"


class ReferenceCache:
    """Log-probabilities of pairs under frozen policies, as a pure function of policy and tokens.

    The key is a hash of the policy's fingerprint and the token ids of prompt and completions, so after a change of base
    model, chat template, tokenizer or ``max_length`` a look-up misses rather than returns a wrong value. The file
    grows by what is computed and is safe to delete; a row that does not match its checksum is ignored with a warning.
    A file of the same name that ends in ``.safetensors``, which earlier versions wrote, is read as well.

    The frozen base scores every pair alone, so that its log-probability does not depend on what else was asked for, and
    may be taken from what another life on this machine has computed.

    Args:
        path: File of the cache, or None to keep it in memory.
        base: Fingerprint of the frozen base.
        shared: File that all lives on this base share, for the base's log-probabilities only; None for none.
    """

    def __init__(self, path: Path | None = None, *, base: str | None = None, shared: Path | None = None) -> None:
        self.base, self.shared = base, shared
        self.computed = 0
        """Number of pairs that were computed, not found, since this object was made."""
        self._own, self._of_base = _open(path), _open(None)

    def logps(
        self, runtime: Runtime, pairs: Sequence[TokenizedPair], policy: str, batch_size: int
    ) -> dict[str, tuple[float, float]]:
        """Log-probabilities ``(chosen, rejected)`` under the model **as it is now**, by the pair's key.

        Call it inside ``model.disable_adapter()`` for the base. All missing pairs are computed and saved in one go, so
        an interrupted call leaves the cache as it was, and repeating the call forms the same batches.

        Args:
            runtime: Model and device.
            pairs: Pairs to look up.
            policy: Fingerprint of the model as it is now.
            batch_size: Pairs in one forward pass; the base scores every pair alone.

        Raises:
            TrainingError: If a log-probability is not finite; the message names the pair's source.
        """
        keys = {pair.key: _key(policy, pair) for pair in pairs}
        known, of_base = self._own.values, policy == self.base
        missing = {keys[pair.key]: pair for pair in pairs if keys[pair.key] not in known}
        if missing and of_base and self.shared is not None:
            self._look_at_shared()
            self._keep({key: self._of_base.values[key] for key in missing if key in self._of_base.values})
            missing = {key: pair for key, pair in missing.items() if key not in known}
        if missing:
            scored = runtime.score(list(missing.values()), None if of_base else batch_size)
            for pair, scores in zip(missing.values(), scored, strict=True):
                if not all(math.isfinite(score) for score in scores):
                    raise TrainingError(
                        f"found reference log-probabilities {scores} for {pair.source}, expected finite numbers",
                        task="",
                        stage="reference",
                    )
            new = dict(zip(missing, scored, strict=True))
            self.computed += len(new)
            self._keep(new)
            if of_base and self.shared is not None:
                self._share(new)
        return {pair.key: known[keys[pair.key]] for pair in pairs}

    def update(self, other: ReferenceCache) -> None:
        """Adds the entries of another cache, in memory and on disk."""
        self._keep(other._own.values)

    def _keep(self, new: Mapping[str, tuple[float, float]]) -> None:
        """Adds entries, in memory and on disk; a failure to write is only a warning."""
        try:
            self._own.add(new)
        except LifeError as error:
            logger.warning("%s; these log-probabilities are computed again when they are needed later", error)

    def _look_at_shared(self) -> None:
        """Reads what the shared file has, or has got since the last time."""
        if self._of_base.path is None:
            self._of_base = _open(self.shared)
        else:
            self._of_base.refresh()

    def _share(self, computed: Mapping[str, tuple[float, float]]) -> None:
        """Adds log-probabilities of the base to the shared file; left out if it is in use or cannot be written."""
        assert self.shared is not None
        with contextlib.suppress(LifeError), exclusive_lock(self.shared.parent):
            self._look_at_shared()
            self._of_base.add(computed)


def _open(path: Path | None) -> KeptRows[tuple[float, float]]:
    """The log-probabilities of a file, by key; those of a file in the form of earlier versions as well."""
    kept = KeptRows(path, _accepted, LOST)
    if path is not None and (older := path.with_suffix(".safetensors")) != path and older.exists():
        kept.values = _read_older(older) | kept.values
    return kept


def _accepted(value: Any) -> tuple[float, float]:
    chosen, rejected = value
    return float(chosen), float(rejected)


def _read_older(path: Path) -> dict[str, tuple[float, float]]:
    with contextlib.suppress(LifeError, KeyError, ValueError):
        tensors = read_tensors(path)
        keys, logps = tensors["keys"], tensors["logps"]
        digest = xxhash.xxh3_128(keys.numpy().tobytes() + logps.numpy().tobytes()).digest()
        if bytes(tensors["checksum"].tolist()) == digest:
            names = [bytes(row).hex() for row in keys.tolist()]
            return {name: (row[0], row[1]) for name, row in zip(names, logps.tolist(), strict=True)}
    logger.warning("%s: damaged, so it is ignored, and %s", path, LOST)
    return {}


def _key(policy: str, pair: TokenizedPair) -> str:
    digest = xxhash.xxh3_128(policy.encode())
    for ids in (pair.prompt, pair.chosen, pair.rejected):
        digest.update(_bytes([len(ids), *ids]))
    return digest.hexdigest()


def _bytes(numbers: Iterable[int]) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)
