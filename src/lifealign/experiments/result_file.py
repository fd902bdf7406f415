"""The result file of a run: how it is written, and how it is read back without trusting it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lifealign.errors import LifeError, describe
from lifealign.experiments.result import RunResult
from lifealign.life.disk.typed_json import validated
from lifealign.storage.files import read_json, write_json

HASH = "content_hash"
"""Key of a result file in addition to those of :class:`RunResult`: :func:`content_hash` of all the others."""
WRITERS = "`lifealign run` or `lifealign compare`, written by this version"


def write_result(path: Path, result: RunResult) -> None:
    """Writes a result file, with the hash of its content.

    Raises:
        LifeError: If the system refuses.
    """
    content = result.model_dump(mode="json")
    write_json(path, content | {HASH: content_hash(content)})


def load_result(path: Path) -> RunResult:
    """Reads a result file.

    Raises:
        LifeError: If it is missing, not a result file, or not what was written; one line that says where.
    """
    try:
        content = read_json(path)
    except (RecursionError, ValueError) as error:
        raise LifeError(f"{path}: found lists nested too deep, or a number too long, to be read as JSON") from error
    if not isinstance(content, dict):
        raise LifeError(f"{path}: found {describe(content)}, expected a result file of {WRITERS}")
    if len(missing := sorted(RunResult.model_fields.keys() - content.keys())) > 1:
        raise LifeError(f"{path}: found a file without {', '.join(missing)}, expected a result file of {WRITERS}")
    claimed = content.pop(HASH, None)
    result = validated(path, content, RunResult)
    if claimed is None:
        raise LifeError(
            f"{path}: {HASH}: found nothing, expected the hash of the rest; an earlier version wrote the file, or it "
            "was changed: delete it, and the command that made it writes it anew"
        )
    if claimed != content_hash(content):
        raise LifeError(
            f"{path}: found content that does not match its {HASH}: it was changed after it was written; restore it "
            "from a copy, or delete it, and the command that made it writes it anew"
        )
    return result


def content_hash(content: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON value in canonical form: keys sorted, no spaces, only ASCII.

    The indentation of a file does not matter; every value does. Floats are written as the shortest text that reads back
    as the same float.

    Example:
        >>> content_hash({"b": 0.1, "a": [1, None]}) == hashlib.sha256(b'{"a":[1,null],"b":0.1}').hexdigest()
        True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
