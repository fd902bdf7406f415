"""What the columns of a row mean: which one is the prompt, what is added to it, what is refused, what is ignored.

::

    prompt, query, instruction             the prompt; if there are several, they must agree
    system, system_prompt, system_message  the system message; the conversation must not have a different one
    history                                earlier turns: [user, assistant] pairs, or messages
    input                                  appended to a text prompt after a blank line (Alpaca)
    tools, images, context, ...            refused, because plain text cannot carry what they say
    score_chosen, chosen_rating, ...       compared by ``check``
    preferred_output, rejected_response,   rows of other trainers (:mod:`lifealign.data.foreign_rows`), if no column
    conversations, ...                     above says the same

An empty column (null, an empty text or list) counts as absent, unless it is the only prompt. Any other column is
ignored, and ``check`` names it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from lifealign.data.messages import Fault, content_of, is_nothing, looks_like_messages, parse_written
from lifealign.data.pair import Message
from lifealign.errors import DataError, describe

ANSWERS = ("chosen", "rejected")
PROMPTS = ("prompt", "query", "instruction")
SYSTEMS = ("system", "system_prompt", "system_message")
ADDED = (*SYSTEMS, "history", "input")
NOT_TEXT = (
    *("tools", "functions", "documents", "context", "chat_template_kwargs"),
    *("image", "images", "video", "videos", "audio", "audios"),
    *("rejected_tools", "rejected_images", "rejected_videos", "rejected_audios"),
)
OPENAI, MS_SWIFT, LLAMA_FACTORY = "openai", "ms-swift", "llama-factory"
FOREIGN = {  # what rows of other trainers are read from, besides chosen and rejected
    OPENAI: ("input", "preferred_output", "non_preferred_output"),
    MS_SWIFT: ("messages", "rejected_response", "rejected_messages"),
    LLAMA_FACTORY: ("conversations",),
}
SCORES = tuple(
    names
    for word in ("score", "rating", "reward")
    for names in ((f"{word}_chosen", f"{word}_rejected"), (f"chosen_{word}", f"rejected_{word}"))
)
USED = {*ANSWERS, *PROMPTS, *ADDED, *NOT_TEXT}
NOTHING_WORDS = {"none", "nan", "null", "n/a", "na", "#n/a", "<na>", "undefined"}

Row = dict[str, Any]


def foreign_shape(row: Row) -> str | None:
    """Which other trainer's shape a row has: a key of :data:`FOREIGN`, or None.

    Columns of other trainers count only where the row says its prompt and answers in no other way: beside those, a
    column such as ``messages`` is ignored like any other.

    Example:
        >>> foreign_shape({"messages": [], "rejected_response": "No"}), foreign_shape({"chosen": "Yes", "messages": []})
        ('ms-swift', None)
    """
    if not any(name in row for name in ANSWERS):
        if any(name in row for name in FOREIGN[OPENAI][1:]):
            return OPENAI
        return MS_SWIFT if any(name in row for name in FOREIGN[MS_SWIFT][1:]) else None
    if is_nothing(row.get("conversations")) or any(not is_nothing(row.get(name)) for name in PROMPTS):
        return None
    return LLAMA_FACTORY if all(isinstance(row.get(name), str | dict) for name in ANSWERS) else None


def added_columns(row: Row) -> list[str]:
    """The columns of a row that add to its prompt; in a row of OpenAI's, ``input`` is the prompt itself.

    Example:
        >>> added_columns({"system": "Be brief.", "input": "..."}), added_columns({"input": {}, "preferred_output": []})
        (['system', 'input'], [])
    """
    shape = foreign_shape(row)
    prompt = FOREIGN[shape] if shape else ()
    return [column for column in ADDED if column not in prompt and not is_nothing(row.get(column))]


def refuse_what_is_not_text(row: Row, fault: Fault) -> None:
    """Refuses columns that were part of the model's input but cannot be part of a conversation in plain text."""
    for column in NOT_TEXT:
        if not is_nothing(row.get(column)):
            expected = "no such column: only text is learnt; write what matters into the prompt, or drop the column"
            raise fault(field=column, found=describe(row[column]), expected=expected)


def prompt_of(row: Row, fault: Fault) -> tuple[str | None, str | tuple[Message, ...] | None]:
    """The name and the content of the column that holds the prompt; None and None if there is no such column.

    Raises:
        DataError: If two columns hold different prompts: nothing in the file says which one is meant, or whether one
            of them is the system message.
    """
    names = [name for name in PROMPTS if not is_nothing(row.get(name))] or [name for name in PROMPTS if name in row]
    if not names:
        return None, None
    first, *others = [content_of(row[name], name, fault) for name in names]
    for name, other in zip(names[1:], others, strict=True):
        if _stripped(other) != _stripped(first):
            expected = f"one prompt; rename {names[0]} to 'system' if it is the system message, or drop one of the two"
            raise fault(field=name, found=f"a different prompt from the one in {names[0]}", expected=expected)
    return names[0], first


def system_of(row: Row, fault: Fault) -> tuple[str | None, str]:
    """The name and the text of the column that holds the system message; None and "" if there is no such column."""
    name, text = None, ""
    for column in SYSTEMS:
        if is_nothing(row.get(column)):
            continue
        other = _text(row[column], column, fault)
        if name and other.strip() != text.strip():
            found = f"a different system message from the one in {name}"
            raise fault(field=column, found=found, expected="one system message; drop the other")
        name, text = name or column, text or other
    return name, text


def input_of(row: Row, fault: Fault) -> str:
    """The text of the column ``input``; "" if there is none."""
    return "" if is_nothing(row.get("input")) else _text(row["input"], "input", fault)


def history_of(row: Row, fault: Fault) -> tuple[Message, ...]:
    """The earlier turns: user and assistant alternating, the assistant last, after at most one system message."""
    value = row.get("history")
    if is_nothing(value):
        return ()
    expected = "a list of [user, assistant] pairs, or of messages that end with one from the assistant"
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_written(value, "history", fault)
        if is_nothing(value):
            return ()
    if not isinstance(value, list | tuple):
        raise fault(field="history", found=describe(value), expected=expected)
    if all(isinstance(turn, dict) for turn in value):
        content = content_of(list(value), "history", fault)
        turns = content if isinstance(content, tuple) else ()
    else:
        said: list[Message] = []
        for index, pair in enumerate(value):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise fault(field=f"history[{index}]", found=describe(pair), expected="a pair [user, assistant]")
            for place, role in enumerate(("user", "assistant")):
                said.append(Message(role, _text(pair[place], f"history[{index}][{place}]", fault)))
        turns = tuple(said)
    roles = [turn.role for turn in turns]
    begin = 1 if roles[0] == "system" else 0
    if len(roles) == begin or roles[begin:] != ["user", "assistant"] * (len(roles[begin:]) // 2):
        found = "roles " + ", ".join(roles[:6])
        raise fault(field="history", found=found, expected="user and assistant taking turns, the assistant last")
    return turns


def says_nothing(text: str) -> bool:
    """Whether a text consists of a word that programs write for a missing value, such as ``nan``."""
    return text.strip().lower() in NOTHING_WORDS


def chosen_scores_no_higher(row: Row) -> bool:
    """Whether any pair of score columns in a row scores the chosen answer no higher than the rejected one.

    Example:
        >>> chosen_scores_no_higher({"score_chosen": 5, "score_rejected": "5.0"}), chosen_scores_no_higher({})
        (True, False)
    """
    scores = ((_number(row.get(chosen)), _number(row.get(rejected))) for chosen, rejected in SCORES)
    return any(chosen is not None and rejected is not None and chosen <= rejected for chosen, rejected in scores)


def ignored_columns(row: Row) -> list[str]:
    """Columns that hold something but are not read, and such keys of messages, written ``chosen[].id``.

    Example:
        >>> ignored_columns({"prompt": [{"role": "user", "content": "Hi", "id": 7}], "score_chosen": 3, "note": ""})
        ['score_chosen', 'prompt[].id']
    """
    shape = foreign_shape(row)
    foreign = FOREIGN[shape] if shape else ()
    ignored = [column for column in row if column not in USED and column not in foreign]
    ignored = [column for column in ignored if not is_nothing(row[column])]
    if shape == OPENAI and isinstance(row.get("input"), dict):
        ignored += [
            f"input.{key}" for key, value in row["input"].items() if key != "messages" and not is_nothing(value)
        ]
    read = ("role", "content", "from", "value") if shape == LLAMA_FACTORY else ("role", "content")
    for column in (*PROMPTS, "history", *ANSWERS, *foreign):
        value = row.get(column)
        if isinstance(value, str) and looks_like_messages(value):
            value = parse_written(value, column, partial(DataError, "row"))
        if isinstance(value, dict) and shape == LLAMA_FACTORY:
            value = [value]
        if isinstance(value, list):
            keys = {key: None for turn in value if isinstance(turn, dict) for key in turn if not is_nothing(turn[key])}
            ignored += [f"{column}[].{key}" for key in keys if key not in read]
    return ignored


def _text(value: object, field: str, fault: Fault) -> str:
    """A text that becomes part of the conversation. A word such as nan is refused: it would be learnt as a text."""
    content = content_of(value, field, fault) if isinstance(value, str) else None
    if not isinstance(content, str):
        raise fault(field=field, found=describe(value), expected="a string")
    if says_nothing(content):
        raise fault(field=field, found=describe(value), expected="a text; leave the field empty if there is none")
    return content


def _stripped(content: str | tuple[Message, ...]) -> str | tuple[Message, ...]:
    return content.strip() if isinstance(content, str) else content


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
