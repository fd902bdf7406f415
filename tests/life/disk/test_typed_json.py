"""Records of JSON: what does not fit is one line that says where, what, and what should be there."""

import re
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, Field, JsonValue

from lifealign.errors import LifeError
from lifealign.life.disk.typed_json import Count, Number, Record, validated
from lifealign.settings.faults import Faults


def even(number: int) -> int:
    if number % 2:
        raise Faults([(("half",), "found a remainder, expected none")])
    return number


class Inner(Record):
    mean: Number
    name: str = "x"
    parts: list[Count] | None = None


class Outer(Record):
    right: bool
    rows: list[list[Number | None]]
    inner: dict[str, Inner]
    free: dict[str, JsonValue]
    shares: dict[str, Annotated[list[Number], Field(min_length=1)]]
    pairs: Annotated[int, AfterValidator(even)]


GOOD: dict[str, Any] = {
    "right": True,
    "rows": [[0.5, None], []],
    "inner": {"q_proj.lora_A": {"mean": 1.5, "parts": [2]}},
    "free": {"seed": [1, {"a": None}]},
    "shares": {"a": [0.25]},
    "pairs": 2,
}


def test_what_fits_is_read_and_numbers_are_those_of_the_file() -> None:
    found = validated("a.json", GOOD | {"shares": {"a": [1, 0.1]}}, Outer)
    assert found.inner["q_proj.lora_A"] == Inner(mean=1.5, parts=[2]) and found.free == GOOD["free"]
    assert found.shares == {"a": [1.0, 0.1]} and found.rows == [[0.5, None], []]
    assert validated("a.json", {"a": {"mean": 1}}, dict[str, Inner])["a"].mean == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right": 1}, "right: found 1, expected true or false"),
        ({"rows": None}, "rows: found null, expected a list of lists"),
        ({"rows": [[0.5], 3]}, "rows[1]: found 3, expected a list of numbers"),
        ({"rows": [[0.5], ["1"]]}, "rows[1][0]: found '1', expected a number or null"),
        ({"rows": [[True]]}, "rows[0][0]: found true, expected a number or null"),
        ({"rows": [[float("nan")]]}, "rows[0][0]: found nan, expected a finite number"),
        ({"rows": [[1e101]]}, "rows[0][0]: found 1e+101, expected a number of at most 1e+100"),
        (
            {"rows": [[10**400]]},
            "rows[0][0]: found a number of more than 15 digits, expected a number or null",
        ),
        ({"inner": []}, "inner: found a list of 0, expected an object"),
        ({"inner": {"a": 7}}, "inner.a: found 7, expected an object with mean, name, parts"),
        ({"inner": {"a.b": {}}}, "inner['a.b'].mean: found nothing, expected a number"),
        ({"inner": {"a": {"mean": None}}}, "inner.a.mean: found null, expected a number"),
        ({"inner": {"a": {"mean": 1, "parts": 1}}}, "inner.a.parts: found 1, expected a list of whole numbers or null"),
        ({"inner": {"a": {"mean": 1, "parts": [2.0]}}}, "inner.a.parts[0]: found 2, expected a whole number"),
        ({"inner": {"a": {"mean": 1, "parts": [-1]}}}, "inner.a.parts[0]: found -1, expected a number of at least 0"),
        ({"inner": {"a": {"mean": 1, "men": 1}}}, "inner.a.men: found an unknown key; did you mean mean?"),
        ({"inner": {"a": {"mean": 1, "zz": 1}}}, "inner.a.zz: found an unknown key, expected one of mean, name, parts"),
        ({"free": "no"}, "free: found 'no', expected an object"),
        ({"shares": {"a": []}}, "shares.a: found a list of 0, expected at least 1 of them"),
        ({"shares": {"\x1b[31m\n": [None]}}, r"shares['\x1b[31m\n'][0]: found null, expected a number"),
        ({"pairs": 3}, "pairs.half: found a remainder, expected none"),
        ({"pairs": 2**63}, "pairs"),
    ],
)
def test_the_first_fault_is_one_line(change: dict[str, Any], message: str) -> None:
    if message == "pairs":
        assert validated("a.json", GOOD | change, Outer).pairs == 2**63  # only a Count has an end
        return
    with pytest.raises(LifeError) as error:
        validated("a.json", GOOD | change, Outer)
    assert str(error.value).startswith(f"a.json: {message}") and "\n" not in str(error.value)
    assert not re.search(r"Input|\x1b", str(error.value))


@pytest.mark.parametrize("content", [None, 3, "text", [], [GOOD]])
def test_what_is_no_object_is_told_by_the_file_alone(content: Any) -> None:
    with pytest.raises(
        LifeError, match=r"^a\.json: found .*, expected an object with right, rows, inner, free, shares"
    ):
        validated("a.json", content, Outer)


def test_what_is_nested_too_deep_is_one_line() -> None:
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(LifeError, match=r"^a\.json: "):
        validated("a.json", GOOD | {"free": {"a": deep}}, Outer)
