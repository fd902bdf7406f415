"""Twelve domains made from prompts of any kind: by words of a topic, half of them for training and half for testing.

A domain's training prompts have words of the first half only, its test prompts of the second half only, so that whoever
finds a domain by the words it was made with finds nothing in the test. A prompt with words of two domains is in none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lifealign.data.pair import Message

Prompt = tuple[Message, ...]

WORDS: dict[str, tuple[str, str]] = {
    "cooking": (
        "recipe recipes bake baking chicken soup dough oven ingredients sauce salad cheese rice cookies pizza pasta",
        "cook cooking dinner dish bread cake chocolate butter vegetables eggs egg beans potatoes meat meal grill fry",
    ),
    "health": (
        "doctor symptoms disease medical headache cancer pain sleep blood weight fever patient therapy vaccine flu",
        "medicine diet health healthy illness cold allergies depression anxiety exercise hospital vitamin muscle skin",
    ),
    "theft": (
        "steal shoplift shoplifting robbery thief pickpocket burglary heist",
        "stealing stolen theft rob burglar robbing loot counterfeit launder laundering embezzle forge forged",
    ),
    "drugs": (
        "cocaine meth heroin weed lsd dealer opium smuggle marijuana smoking cigarettes",
        "drug drugs cannabis smoke addicted addiction overdose",
    ),
    "weapons": (
        "bomb bombs explosive explosives gun guns rifle bullet bullets ammunition",
        "weapon weapons knife grenade poison poisonous sword shoot shooting firearm firearms",
    ),
    "computers": (
        "hack hacker hacking password passwords virus malware website software excel phishing",
        "computer laptop internet code programming python wifi browser online phone email account accounts",
    ),
    "travel": (
        "travel trip flight flights hotel vacation visa passport tourist airport cruise",
        "visit city beach country airline luggage island hiking camping tour europe paris",
    ),
    "money": (
        "money bank loan invest investing investment stock stocks taxes tax mortgage",
        "credit debt budget salary insurance business bitcoin savings retirement income price",
    ),
    "home": (
        "garden plant plants clean cleaning lawn furniture roof kitchen laundry paint",
        "house apartment wall floor carpet stain bathroom window sink toilet soil tree trees",
    ),
    "love": (
        "girlfriend boyfriend wife husband dating marriage wedding divorce romantic",
        "relationship partner date kiss married ex crush spouse affair cheating flirt",
    ),
    "animals": (
        "dog dogs puppy cat cats kitten horse fish",
        "pet pets bird birds animal animals snake bear elephant rabbit cow",
    ),
    "arts": (
        "movie movies film films book books novel author actor actress",
        "song songs music band guitar piano album singer poem story painting",
    ),
}
"""Words of twelve topics, in two halves."""


def topic_of(prompt: Prompt) -> tuple[str, int] | None:
    """The domain of a prompt and which half of its words it has; None if it has words of several, or of both halves.

    Example:
        >>> topic_of((Message("user", "Which soup is best?"),))
        ('cooking', 0)
        >>> topic_of((Message("user", "A soup for my dog?"),)) is None
        True
    """
    said = set(re.findall(r"[a-z']+", " ".join(message.content for message in prompt).lower()))
    found = {
        (name, half) for name, halves in WORDS.items() for half, words in enumerate(halves) if said & set(words.split())
    }
    return found.pop() if len(found) == 1 else None


def domains(prompts: Iterable[Prompt]) -> dict[str, tuple[list[Prompt], list[Prompt]]]:
    """The training and test prompts of each domain, in the order given."""
    made: dict[str, tuple[list[Prompt], list[Prompt]]] = {name: ([], []) for name in WORDS}
    for prompt in prompts:
        if (topic := topic_of(prompt)) is not None:
            made[topic[0]][topic[1]].append(prompt)
    return made
