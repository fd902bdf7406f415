"""Reference log-probabilities: computed once per pair and policy, and kept on disk by content hash."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import xxhash

from lifealign.errors import LifeError, TrainingError
from lifealign.model.runtime import Runtime
from lifealign.model.tokens import TokenizedPair
from lifealign.storage.lock import exclusive_lock
from lifealign.storage.tensors import read_tensors, write_tensors

logger = logging.getLogger(__name__)


class ReferenceCache:
    """Log-probabilities of pairs under frozen policies, as a pure function of policy and tokens.

    The key is a hash of the policy's fingerprint and the token ids of prompt and completions, so after a change of base
    model, chat template, tokenizer or ``max_length`` a look-up misses rather than returns a wrong value. The file is
    safe to delete. A file that does not match its own checksum is ignored with a warning and rewritten.

    The frozen base scores every pair alone, so that its log-probability does not depend on what else was asked for, and
    may be taken from what another life on this machine has computed.

    Args:
        path: File of the cache, or None to keep it in memory.
        base: Fingerprint of the frozen base.
        shared: File that all lives on this base share, for the base's log-probabilities only; None for none.
    """

    def __init__(self, path: Path | None = None, *, base: str | None = None, shared: Path | None = None) -> None:
        self.path, self.base, self.shared = path, base, shared
        self.computed = 0
        """Number of pairs that were computed, not found, since this object was made."""
        self._logps: dict[str, tuple[float, float]] = {}
        if path is not None and path.exists():
            self._logps = _read(path)

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
        of_base = policy == self.base
        missing = {keys[pair.key]: pair for pair in pairs if keys[pair.key] not in self._logps}
        if missing and of_base and self.shared is not None and self.shared.exists():
            known = {key: logps for key, logps in _read(self.shared).items() if key in missing}
            self._logps |= known
            missing = {key: pair for key, pair in missing.items() if key not in known}
            self.save()
        if missing:
            scored = runtime.score(list(missing.values()), None if of_base else batch_size)
            for pair, scores in zip(missing.values(), scored, strict=True):
                if not all(math.isfinite(score) for score in scores):
                    raise TrainingError(
                        f"found reference log-probabilities {scores} for {pair.source}, expected finite numbers",
                        task="",
                        stage="reference",
                    )
                self._logps[keys[pair.key]] = scores
            self.computed += len(missing)
            self.save()
            if of_base and self.shared is not None:
                self._share({key: self._logps[key] for key in missing})
        return {pair.key: self._logps[keys[pair.key]] for pair in pairs}

    def update(self, other: ReferenceCache) -> None:
        """Adds the entries of another cache."""
        self._logps |= other._logps

    def save(self) -> None:
        """Writes the file, if the cache has one and is not empty; a failure is only a warning."""
        if self.path is None or not self._logps:
            return
        try:
            _write(self.path, self._logps)
        except LifeError as error:
            logger.warning("%s; these log-probabilities are computed again when they are needed later", error)

    def _share(self, computed: Mapping[str, tuple[float, float]]) -> None:
        """Adds log-probabilities of the base to the shared file; left out if it is in use or cannot be written."""
        assert self.shared is not None
        with contextlib.suppress(LifeError), exclusive_lock(self.shared.parent):
            _write(self.shared, (_read(self.shared) if self.shared.exists() else {}) | dict(computed))


def _write(path: Path, logps: Mapping[str, tuple[float, float]]) -> None:
    names = sorted(logps)
    keys = torch.frombuffer(bytearray(bytes.fromhex("".join(names))), dtype=torch.uint8).reshape(-1, 16)
    values = torch.tensor([logps[name] for name in names], dtype=torch.float32)
    write_tensors(path, {"keys": keys, "logps": values, "checksum": _checksum(keys, values)})


def _read(path: Path) -> dict[str, tuple[float, float]]:
    with contextlib.suppress(LifeError, KeyError, ValueError):
        tensors = read_tensors(path)
        keys, logps = tensors["keys"], tensors["logps"]
        if torch.equal(tensors["checksum"], _checksum(keys, logps)):
            names = [bytes(row).hex() for row in keys.tolist()]
            return {name: (row[0], row[1]) for name, row in zip(names, logps.tolist(), strict=True)}
    logger.warning("%s: damaged, so it is ignored and its log-probabilities are computed again", path)
    return {}


def _checksum(keys: torch.Tensor, logps: torch.Tensor) -> torch.Tensor:
    digest = xxhash.xxh3_128(keys.numpy().tobytes() + logps.numpy().tobytes()).digest()
    return torch.frombuffer(bytearray(digest), dtype=torch.uint8)


def _key(policy: str, pair: TokenizedPair) -> str:
    digest = xxhash.xxh3_128(policy.encode())
    for ids in (pair.prompt, pair.chosen, pair.rejected):
        digest.update(_bytes([len(ids), *ids]))
    return digest.hexdigest()


def _bytes(numbers: Iterable[int]) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)
