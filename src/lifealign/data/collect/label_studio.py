"""Label Studio: tasks with two answers side by side (the tag ``Pairwise``), from its export as JSON.

::

    {"id": 7, "data": {"prompt": "...", "answer1": "...", "answer2": "..."},
     "annotations": [{"id": 9, "completed_by": 1, "result": [
         {"type": "pairwise", "to_name": "answer1,answer2", "value": {"selected": "left"}}]}]}

The names in ``to_name`` are those of tags. A tag is taken to show the field of its own name, as in the program's
templates; where there are no such fields, the answers are looked for under :data:`ANSWERS`. People who choose
differently contradict each other, which is for the pairs to settle.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from lifealign.data.collect.answered import Opinion, Reading, Source, answer, moment
from lifealign.data.messages import Fault, is_nothing, missing
from lifealign.errors import DataError, describe

SKIPPED = "tasks that an annotator skipped"
NO_CHOICE = "annotations without a choice"
PROMPTS = ("prompt", "messages", "query", "instruction", "question")
ANSWERS = (("answer1", "answer2"), ("text1", "text2"), ("response1", "response2"), ("left", "right"))


def recognises(row: dict[str, Any]) -> bool:
    """Whether a row is a task with annotations."""
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)


def read(path: str, rows: Iterable[tuple[int, dict[str, Any]]]) -> Reading:
    """Reads an export of tasks.

    Raises:
        DataError: At the first row that is no task, or whose data hold no prompt or not two answers that can be told
            by their names.
    """
    reading = Reading()
    for line, row in rows:
        fault, place = partial(DataError, path, line=line), f"{path}:{line}"
        if not recognises(row):
            raise fault(found=describe(row), expected="a task with data and annotations")
        data = row["data"]
        prompt = next((data[name] for name in PROMPTS if not is_nothing(data.get(name))), None)
        if prompt is None:
            raise fault(field="data", found=missing(data), expected=f"one of {', '.join(PROMPTS)}")
        shown: dict[str, None] = {}  # fields, in order
        for index, annotation in enumerate(row["annotations"]):
            reading.feedback += 1
            if not isinstance(annotation, dict):
                raise fault(field=f"annotations[{index}]", found=describe(annotation), expected="an annotation")
            if annotation.get("was_cancelled"):
                reading.leave_out(SKIPPED, place)
                continue
            time = moment(annotation.get("updated_at") or annotation.get("created_at"), "updated_at", fault)
            for number, (sides, side) in enumerate(chosen := [*_choices(annotation)]):
                fields = _fields(sides, data, fault)
                shown |= dict.fromkeys(fields)
                about, over = fields if side == "left" else fields[::-1]
                # The same annotation in a newer export, not that of another installation, which has the same numbers.
                slot = f"{[row.get('id'), annotation.get('id', index), number, prompt, *(data[one] for one in fields)]}"
                reading.opinions.append(
                    Opinion(f"{place} {about}", "chosen", place, slot, time, over=f"{place} {over}")
                )
            if not chosen:
                reading.leave_out(NO_CHOICE, place)
        reading.answers += [answer((f"{place} {name}",), prompt, data[name], place, fault) for name in shown]
    return reading


def _choices(annotation: dict[str, Any]) -> Iterable[tuple[list[str], str]]:
    """The tags that were compared, left one first, and the side that was chosen."""
    result = annotation.get("result")
    for one in result if isinstance(result, list) else ():
        if not isinstance(one, dict) or one.get("type") != "pairwise" or not isinstance(one.get("value"), dict):
            continue
        side, names = one["value"].get("selected"), one.get("to_name")
        if side in ("left", "right"):
            names = names.split(",") if isinstance(names, str) else names
            yield [str(name).strip() for name in names] if isinstance(names, list) else [], side


def _fields(sides: list[str], data: dict[str, Any], fault: Fault) -> tuple[str, str]:
    """The fields that hold the left and the right answer."""
    for left, right in ((sides[0], sides[1]), *ANSWERS) if len(sides) == 2 else ANSWERS:
        if not is_nothing(data.get(left)) and not is_nothing(data.get(right)):
            return left, right
    tags = f"{', '.join(sides)}, as its tags are named, or " if sides else ""
    expected = f"the two answers as {tags}{' or '.join(' and '.join(names) for names in ANSWERS)}; rename the fields"
    raise fault(field="data", found=missing(data), expected=expected)


SOURCE = Source("Label Studio tasks", recognises, read)
