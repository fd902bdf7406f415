"""How often a life has decided about a step: each decision spends its part of what the promise may be wrong."""

from __future__ import annotations

from lifealign.errors import LifeError
from lifealign.life.disk import names
from lifealign.life.disk.directory import LifeDirectory
from lifealign.storage.files import read_sealed_json, write_sealed_json


def decisions_of(directory: LifeDirectory) -> list[str]:
    """Fingerprints of the adapters that were decided about, oldest first.

    Refused steps and those that were rolled back count too: trying until something passes must not be free.

    Raises:
        LifeError: If the file is damaged.
    """
    path = directory.inside(names.DECISIONS)
    if not path.exists():
        return []
    found = read_sealed_json(path).get("candidates")
    if not isinstance(found, list) or not all(isinstance(candidate, str) for candidate in found):
        raise LifeError(f"{path}: found no list of candidates, expected one")
    return found


def number_of(directory: LifeDirectory, candidate: str) -> int:
    """The number of the decision about an adapter, from 1; it is written down before the decision is made.

    The same adapter is decided about once: a step that was interrupted and is learnt again comes to the same number.

    Args:
        directory: The life's files, locked.
        candidate: Fingerprint of the adapter as it was learnt.
    """
    known = decisions_of(directory)
    if candidate not in known:
        known.append(candidate)
        write_sealed_json(directory.inside(names.DECISIONS), {"candidates": known})
    return known.index(candidate) + 1
