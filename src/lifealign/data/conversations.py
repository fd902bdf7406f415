"""Conversations: whose turn it is, where two of them part, and what belongs before their first turn."""

from __future__ import annotations

from lifealign.data.messages import Fault
from lifealign.data.pair import Message
from lifealign.data.transcripts import turns_of
from lifealign.errors import describe

Content = str | tuple[Message, ...]  # of a field: a text, or messages


def alternating(prompt: tuple[Message, ...], field: str, fault: Fault) -> tuple[Message, ...]:
    """Makes sure that user and assistant take turns, after at most one system message, and the user has the last."""
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
        found = "no turn of the user" if len(prompt) == start else "a last turn from the assistant"
        raise fault(field=field, found=found, expected="a prompt that ends with the user's turn")
    return prompt


def part(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...], fault: Fault
) -> tuple[tuple[Message, ...], str, str]:
    """Parts two conversations into the prompt they share and their last, differing answers.

    Raises:
        DataError: Of ``fault``, if they part before their last answer.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    for field, turns in (("chosen", chosen), ("rejected", rejected)):
        if [message.role for message in turns[shared:]] != ["assistant"]:
            roles = ", ".join(message.role for message in turns[shared : shared + 6])
            found = f"{roles} after the {shared} turns that chosen and rejected share"
            raise fault(field=field, found=found, expected="one turn, the assistant's answer")
    return chosen[:shared], chosen[-1].content, rejected[-1].content


def repeats(prompt: Content, messages: tuple[Message, ...]) -> bool:
    """Whether a prompt says again what a conversation holds anyway; whitespace does not count."""
    if isinstance(prompt, tuple):
        return prompt == messages
    texts = [squeezed(message.content) for message in messages if message.role != "assistant"]
    joined = [squeezed(" ".join(message.content for message in messages[begin:])) for begin in (0, 1)]
    turns = turns_of(prompt)
    if turns and turns[-1] == ("assistant", ""):
        turns = turns[:-1]
    return squeezed(prompt) in texts + joined or (turns != () and turns == messages)


def as_system(field: str, prompt: Content, messages: tuple[Message, ...], fault: Fault) -> Message:
    """The system message that a prompt beside whole conversations is, where nothing speaks against that.

    Raises:
        DataError: If they have one, or the prompt holds one of their turns, or is part of one (a prompt that was cut).
    """
    if isinstance(prompt, tuple):
        found, expected = "messages that chosen and rejected do not begin with", "answers of one message each"
        raise fault(field=field, found=found, expected=f"the conversation up to the answer, or {expected}")
    text = f" {squeezed(prompt)} "
    turns = [f" {squeezed(message.content)} " for message in messages]
    overlap = any(turn in text or text.strip() in turn for turn in turns)
    if overlap or messages[0].role == "system" or turns_of(prompt):
        expected = "the user's turn, or a system message where there is none; drop the column if it is neither"
        raise fault(field=field, found=f"another text ({describe(prompt)}) than in the conversation", expected=expected)
    return Message("system", prompt)


def with_system(name: str | None, text: str, messages: tuple[Message, ...], fault: Fault) -> tuple[Message, ...]:
    """The conversation with the system message of column ``name``, unless that is None; it may be there already."""
    if name is None:
        return messages
    if messages[0].role != "system":
        return (Message("system", text), *messages)
    if messages[0].content.strip() != text.strip():
        found = f"another system message ({describe(text)}) than in the conversation"
        raise fault(field=name, found=found, expected="one system message; drop the other")
    return messages


def with_history(history: tuple[Message, ...], messages: tuple[Message, ...], fault: Fault) -> tuple[Message, ...]:
    """Earlier turns, then the prompt, and one system message before both; a prompt may repeat the turns."""
    system, turns = messages[: messages[0].role == "system"], messages[messages[0].role == "system" :]
    if not history:
        return messages
    if history[0].role == "system":
        system, history = with_system("history[0]", history[0].content, system or history[:1], fault), history[1:]
    return (*system, *turns) if turns[: len(history)] == history else (*system, *history, *turns)


def squeezed(text: str) -> str:
    """A text with one space for any whitespace, to compare it by."""
    return " ".join(text.split())
