"""One field of a row: a text, or a list of messages, which CSV or JSON may hold as text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

from lifealign.data.json_rows import unique_keys
from lifealign.data.pair import Message
from lifealign.errors import DataError, describe

ROLES = ("system", "user", "assistant")
NOT_READ = (  # keys of a message whose meaning plain text cannot carry
    *("tool_calls", "tool_call_id", "function_call", "tools", "name"),
    *("reasoning_content", "reasoning", "thinking"),
    *("image", "images", "video", "videos", "audio", "audios"),
)
LONGEST_WRITTEN = 8 * 2**20  # characters in a list written as text; parsing it takes far more memory
DEEPEST_WRITTEN = 20  # nested brackets; messages with parts need three
MOST_TOKENS = 200_000  # brackets, commas, texts; a message with role and content has ten

# How a list of messages written as text starts: in JSON or Python notation, possibly as a numpy array or quoted once
# more; or a single message without a list. The text must also contain a role of a conversation. Nothing is tried twice
# (``*+``), because a text may begin with any number of blanks.
_STARTS = re.compile(
    r"""\s*+(?:array\()?\s*+["']?\s*+\[?\s*+\{[^{}\[\]]{0,200}?["'](?:role|content|from|value)\\*["']\s*:"""
)
_ROLE = re.compile(
    r"""["'](?:role|from)\\*["']\s*:\s*\\*["']"""
    r"""(?:system|developer|user|assistant|tool|function|human|gpt)\\*["']"""
)
_TOKEN = re.compile(
    r"""\s++|[\[\]{}(),:]|'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+"|-?\d[\d.eE+-]{0,40}"""
    r"""|None|True|False|null|true|false""",
    re.DOTALL,
)

Fault = Callable[..., DataError]  # DataError with path and line filled in


def is_nothing(value: object) -> bool:
    """Whether a value is empty: null, NaN, an empty or blank text, an empty list or object.

    The texts ``[]`` and ``{}`` are empty too, because CSV writes empty lists and objects that way.
    """
    if isinstance(value, str):
        return value.strip() in ("", "[]", "{}")
    return value is None or value in ([], {}, ()) or value != value


def content_of(value: object, field: str, fault: Fault) -> str | tuple[Message, ...]:
    """Converts a field that holds a text or a list of messages.

    A text that starts like a list of messages and contains a role of a conversation is parsed as such a list, in JSON
    or Python notation. The content of a message is never parsed: there, such a text stays a text. If the content comes
    in parts and all of them are text, they are joined with nothing in between.

    Raises:
        DataError: If the value is neither, a list written as text does not parse, a role is not one of :data:`ROLES`,
            or a message holds more than text (:data:`NOT_READ`, or parts of another type).
    """
    if isinstance(value, str):
        if not looks_like_messages(value):
            return _clear_text(value, field, fault)
        return content_of(parse_written(value, field, fault), field, fault)  # written twice: parsed twice
    if not isinstance(value, list) or not value:
        raise fault(field=field, found=describe(value), expected="a string or a list of messages")
    return tuple(_message(message, f"{field}[{index}]", fault) for index, message in enumerate(value))


def answer_of(content: str | tuple[Message, ...], field: str, fault: Fault) -> str:
    """The text of an answer: a text, or the one message of the assistant that a list holds.

    Raises:
        DataError: If the list holds anything else.
    """
    if isinstance(content, str):
        return content
    if len(content) != 1 or content[0].role != "assistant":
        roles = ", ".join(message.role for message in content[:6])
        raise fault(field=field, found=f"messages from {roles}", expected="one message, from the assistant")
    return content[0].content


def _message(message: Any, place: str, fault: Fault) -> Message:
    if not isinstance(message, dict):
        raise fault(field=place, found=describe(message), expected="a message with role and content")
    for key in NOT_READ:
        if not is_nothing(message.get(key)):
            expected = "role and content only: only text is learnt; write what matters into the content"
            raise fault(field=f"{place}.{key}", found=describe(message[key]), expected=expected)
    for key, kinds in (("role", str), ("content", str | list)):
        if not isinstance(message.get(key), kinds):
            found = describe(message[key]) if key in message else missing(message)
            raise fault(field=f"{place}.{key}", found=found, expected="a string")
    if message["role"] not in ROLES:
        expected = "'system', 'user' or 'assistant'"
        raise fault(field=f"{place}.role", found=describe(message["role"]), expected=expected)
    content = message["content"]
    text = content if isinstance(content, str) else _joined(content, f"{place}.content", fault)
    return Message(message["role"], _clear_text(text, f"{place}.content", fault))


def _joined(parts: list[Any], place: str, fault: Fault) -> str:
    for index, part in enumerate(parts):
        known = isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        if not known or not all(key in ("type", "text") or is_nothing(part[key]) for key in part):
            kind = part.get("type") if isinstance(part, dict) else None
            found = f"a part of type {kind!r:.40}" if isinstance(kind, str) and kind != "text" else describe(part)
            expected = "{'type': 'text', 'text': a string} and nothing else: only text is learnt"
            raise fault(field=f"{place}[{index}]", found=found, expected=expected)
    return "".join(part["text"] for part in parts)


def looks_like_messages(text: str) -> bool:
    """Whether a text starts like a list of messages, or like one message, and contains a role of a conversation.

    Example:
        >>> looks_like_messages("[{'role': 'user', 'content': 'Hi'}]"), looks_like_messages("[sic] role: user")
        (True, False)
    """
    return _STARTS.match(text) is not None and _ROLE.search(text) is not None


def parse_written(text: str, field: str, fault: Fault) -> Any:
    """Parses a list written as text in JSON or Python notation; executes nothing.

    Raises:
        DataError: If it is neither, or is longer or nested more deeply than any conversation.
    """
    expected = "a list in JSON or Python notation; if a plain text is meant, put it into a message's content"
    if len(text) > LONGEST_WRITTEN:
        found = f"a list written as text, of more than {LONGEST_WRITTEN} characters"
        raise fault(field=field, found=found, expected=expected)
    # Python's parser is only safe with text that is known to be flat and to consist of literals.
    if not _is_flat(text):
        found = "a list written as text that is cut short, followed by other text, or not a flat list"
        found += f": {text.strip()[:40]!r}"
        raise fault(field=field, found=found, expected=expected)
    try:
        try:
            return json.loads(text, object_pairs_hook=unique_keys)
        except json.JSONDecodeError:
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # ValueError: a repeated key, a name, a sum
        found = f"a list written as text that does not parse: {text.strip()[:40]!r}"
        raise fault(field=field, found=found, expected=expected) from None


def _is_flat(text: str) -> bool:
    depth = position = 0
    for _ in range(MOST_TOKENS):
        if position == len(text):
            return depth == 0
        token = _TOKEN.match(text, position)
        if token is None:
            return False
        position = token.end()
        depth += (token[0] in ("[", "{", "(")) - (token[0] in ("]", "}", ")"))
        if not 0 <= depth <= DEEPEST_WRITTEN:
            return False
    return False


def missing(row: dict[str, Any]) -> str:
    """Says which fields a row has, when another one is missing."""
    return "no such field among " + ", ".join(repr(str(key)[:40]) for key in list(row)[:12]) if row else "no fields"


def _clear_text(text: str, field: str, fault: Fault) -> str:
    """Refuses characters that tokenizers or files cannot carry faithfully."""
    if bad := re.search("[\0\ud800-\udfff]", text):
        kind = "a NUL character" if bad[0] == "\0" else f"half a character (lone surrogate U+{ord(bad[0]):04X})"
        raise fault(field=field, found=f"{kind} at position {bad.start()}", expected="text without it")
    return text
