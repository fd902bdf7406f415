"""The methods of the comparison, one file and one class each; a method is imported when it is first asked for.

:data:`FACTS` holds what is needed of a method to show a life, so that showing one does not import torch. A test keeps
it in line with the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifealign.methods.base import Method


@dataclass(frozen=True)
class Facts:
    """What is known about a method without importing it; see :class:`~lifealign.methods.base.Method` for the meaning.

    Attributes:
        title: Its display name; without the hyphen, the name of its class.
        one_model: Whether one model answers for all tasks.
        keeps_updates: Tells from a method's options whether the refined updates of all tasks have to be kept.
    """

    title: str
    one_model: bool = True
    keeps_updates: Callable[[Mapping[str, Any]], bool] = lambda options: False


FACTS = {
    "lifealign": Facts("LifeAlign", keeps_updates=lambda options: options["overlap_kept"] < 1),
    "cumulative": Facts("Cumulative", keeps_updates=lambda options: options["overlap_kept"] < 1),
    "seqft": Facts("SeqFT"),
    "stl": Facts("STL", one_model=False),
    "mtl": Facts("MTL"),
    "er": Facts("ER"),
    "ewc": Facts("EWC"),
    "gem": Facts("GEM"),
    "agem": Facts("A-GEM"),
    "olora": Facts("O-LoRA"),
    "l2p": Facts("L2P"),
    "cppo": Facts("CPPO"),
}
"""Facts by the name that YAML, the command line and result files use for a method, which is the name of its file."""


class Methods(MutableMapping[str, "type[Method]"]):
    """Classes by name: those of this package, imported when they are first needed, and any that are added."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Method] | None] = dict.fromkeys(FACTS)

    def __getitem__(self, name: str) -> type[Method]:
        kind = self._classes[name]
        if kind is None:
            kind = getattr(import_module(f"{__name__}.{name}"), FACTS[name].title.replace("-", ""))
            self._classes[name] = kind
        return kind

    def __setitem__(self, name: str, kind: type[Method]) -> None:
        self._classes[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes


METHODS = Methods()
"""Every method by its name."""


def facts_of(name: str) -> Facts:
    """What is known about a method: from :data:`FACTS` for this package's own, from the class for one that was added.

    Raises:
        KeyError: If there is no such method.
    """
    if name in FACTS:
        return FACTS[name]
    kind = METHODS[name]
    return Facts(kind.title, kind.one_model, lambda options: kind(**options).keeps_updates)
