"""Times of logs, in whatever way they write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from tests.refusals import refusal

from lifealign.data.collect.answered import moment
from lifealign.errors import DataError

fault = partial(DataError, "f", line=1)
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-27T12:00:00Z",
        "2026-11-27T13:00:00.000+01:00",
        "2026-11-27 12:00:00.000000",
        " 2026-11-27T12:00 ",
        1795780800,
        1795780800.0,
        1795780800000,
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=9))),
    ],
)
def test_a_time_is_in_utc_however_it_is_written(value: Any) -> None:
    found = moment(value, "time", fault)
    assert found is not None
    assert (found, found.utcoffset()) == (NOON, timedelta(0))


@pytest.mark.parametrize("value", [None, "", " ", float("nan")])
def test_no_time_is_none(value: Any) -> None:
    assert moment(value, "time", fault) is None


@pytest.mark.parametrize("value", ["noon", "27.11.2026", True, 1e30, ["2026"], {"time": 1}])
def test_what_is_no_time_is_refused(value: Any) -> None:
    assert refusal(lambda: moment(value, "time", fault))[2::2] == ("time", "a time, such as '2026-11-27T12:00:00Z'")
