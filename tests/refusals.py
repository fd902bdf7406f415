"""What an error about data says, in parts: tests hold its facts exactly and leave the sentence around them alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lifealign.errors import DataError

Parts = tuple[str, int | None, str | None, str, str]
"""File, line, field, what was found and what was expected."""


def refusal(work: Callable[[], object], kind: type[DataError] = DataError) -> Parts:
    """Does some work that has to be refused, by an error of just this kind, and takes the error apart."""
    with pytest.raises(DataError) as caught:
        work()
    error = caught.value
    assert type(error) is kind
    return error.path, error.line, error.field, error.found, error.expected
