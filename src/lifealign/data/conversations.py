"""Conversations: the order of turns, the prompt that two of them share, and what goes before their first turn."""

from __future__ import annotations

from lifealign.data.messages import Fault
from lifealign.data.pair import Message
from lifealign.data.transcripts import turns_of
from lifealign.errors import describe

Content = str | tuple[Message, ...]  # content of a field: a text, or messages


def alternating(prompt: tuple[Message, ...], field: str, fault: Fault) -> tuple[Message, ...]:
    """Returns a prompt unchanged if user and assistant take turns, after at most one system message, the user last.

    Raises:
        DataError: Made by ``fault``, if they do not.
    """
    start = 1 if prompt and prompt[0].role == "system" else 0
    for index in range(start, len(prompt)):
        role = ("user", "assistant")[(index - start) % 2]
        if prompt[index].role != role:
            raise fault(
                field=f"{field}[{index}].role",
                found=repr(prompt[index].role),
                expected=f"{role!r}: user and assistant take turns, after at most one system message",
            )
    if len(prompt) == start or prompt[-1].role != "user":
        found = "no turn from the user" if len(prompt) == start else "a last turn from the assistant"
        raise fault(field=field, found=found, expected="a prompt that ends with the user's turn")
    return prompt


def part(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...], fault: Fault
) -> tuple[tuple[Message, ...], str, str]:
    """Splits two conversations into the prompt they share and the last answer of each.

    Raises:
        DataError: Made by ``fault``, if they differ before their last answers.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    for field, turns in (("chosen", chosen), ("rejected", rejected)):
        if [message.role for message in turns[shared:]] != ["assistant"]:
            roles = ", ".join(message.role for message in turns[shared : shared + 6])
            found = f"{roles} after the {'turn' if shared == 1 else f'{shared} turns'} that chosen and rejected share"
            raise fault(field=field, found=found, expected="one turn, the assistant's answer")
    return chosen[:shared], chosen[-1].content, rejected[-1].content


def repeats(prompt: Content, messages: tuple[Message, ...]) -> bool:
    """Whether a prompt repeats what a conversation contains, ignoring differences in whitespace."""
    if isinstance(prompt, tuple):
        return prompt == messages
    texts = [squeezed(message.content) for message in messages if message.role != "assistant"]
    joined = [squeezed(" ".join(message.content for message in messages[begin:])) for begin in (0, 1)]
    turns = turns_of(prompt)
    if turns and turns[-1] == ("assistant", ""):
        turns = turns[:-1]
    return squeezed(prompt) in texts + joined or (turns != () and turns == messages)


def as_system(field: str, prompt: Content, messages: tuple[Message, ...], fault: Fault) -> Message:
    """Turns a prompt beside whole conversations into their system message, if it can only be that.

    Raises:
        DataError: If the conversations have a system message, or the prompt contains one of their turns or is part of
            one (a prompt that was cut).
    """
    if isinstance(prompt, tuple):
        found, expected = "messages that chosen and rejected do not begin with", "answers of one message each"
        raise fault(field=field, found=found, expected=f"the conversation up to the answer, or {expected}")
    text = f" {squeezed(prompt)} "
    turns = [f" {squeezed(message.content)} " for message in messages]
    overlap = any(turn in text or text.strip() in turn for turn in turns)
    if overlap or messages[0].role == "system" or turns_of(prompt):
        found = f"a text ({describe(prompt)}) that differs from the conversation"
        expected = "the user's turn, or a system message where there is none; drop the column if it is neither"
        raise fault(field=field, found=found, expected=expected)
    return Message("system", prompt)


def with_system(name: str | None, text: str, messages: tuple[Message, ...], fault: Fault) -> tuple[Message, ...]:
    """Puts the system message of column ``name`` before a conversation that does not have it yet.

    A ``name`` of None means that there is no such column; the conversation is then returned unchanged.

    Raises:
        DataError: Made by ``fault``, if the conversation has a different system message.
    """
    if name is None:
        return messages
    if messages[0].role != "system":
        return (Message("system", text), *messages)
    if messages[0].content.strip() != text.strip():
        found = f"a system message ({describe(text)}) that differs from the one in the conversation"
        raise fault(field=name, found=found, expected="one system message; drop the other")
    return messages


def with_history(history: tuple[Message, ...], messages: tuple[Message, ...], fault: Fault) -> tuple[Message, ...]:
    """Puts earlier turns before a prompt, unless the prompt repeats them, and one system message before both."""
    system, turns = messages[: messages[0].role == "system"], messages[messages[0].role == "system" :]
    if not history:
        return messages
    if history[0].role == "system":
        system, history = with_system("history[0]", history[0].content, system or history[:1], fault), history[1:]
    return (*system, *turns) if turns[: len(history)] == history else (*system, *history, *turns)


def squeezed(text: str) -> str:
    """A text with all runs of whitespace replaced by one space, for comparison."""
    return " ".join(text.split())
