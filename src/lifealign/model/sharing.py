"""Shared prompts on a model: what each kind of layer may see of a row that holds two answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
KINDS = (FULL, SLIDING, CHUNKED)
"""Kinds of layers, as transformers' configurations name them, that a mask can make to see one answer of two."""


@dataclass(frozen=True)
class Reach:
    """How far a kind of layer looks back.

    Attributes:
        kind: ``full_attention``, ``sliding_attention`` or ``chunked_attention``.
        size: Positions in the window, the token's own included, or in a chunk; None for full attention.
    """

    kind: str = FULL
    size: int | None = None

    def visible(self, positions: Int[Tensor, "rows length"]) -> Bool[Tensor, "rows length length"] | None:
        """Which keys are near enough for each query, counted in positions, not in places of the row; None for all.

        The second answer of a row stands behind the first one, but its positions go on from the prompt's end: counted
        in places it would lose as much of the prompt as the first answer is long.
        """
        if self.size is None:
            return None
        query, key = positions[:, :, None], positions[:, None, :]
        if self.kind == SLIDING:
            return query - key < self.size
        return torch.div(query, self.size, rounding_mode="floor") == torch.div(key, self.size, rounding_mode="floor")


@dataclass(frozen=True)
class Sharing:
    """The form in which a model takes the masks of shared prompts.

    Attributes:
        reaches: One per kind of layer.
        by_kind: Whether the model takes a mapping from kind to mask; else it takes one mask for all its layers.
    """

    reaches: tuple[Reach, ...] = (Reach(),)
    by_kind: bool = False

    def masks(
        self, visible: Bool[Tensor, "rows 1 length length"], positions: Int[Tensor, "rows length"], dtype: torch.dtype
    ) -> Tensor | Mapping[str, Tensor]:
        """What a model is given in place of its own masks.

        Args:
            visible: Which keys a query may see as far as answers and order go.
            positions: Position of every token.
            dtype: Of the model.

        Returns:
            Masks that attention adds to its scores: 0 where a key is visible, the least number of the dtype elsewhere.
        """
        found = {}
        for reach in self.reaches:
            near = reach.visible(positions)
            seen = visible if near is None else visible & near[:, None]
            found[reach.kind] = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        return found if self.by_kind else next(iter(found.values()))

    def __str__(self) -> str:
        """``full attention``, or the windows: ``full attention, sliding attention (4096)``."""
        return ", ".join(
            reach.kind.replace("_", " ") + ("" if reach.size is None else f" ({reach.size})") for reach in self.reaches
        )


def candidates(config: Any) -> list[Sharing]:
    """Forms in which a model of this configuration might take shared prompts, the likeliest first.

    None is right until it is proven (:mod:`lifealign.model.proof`): a configuration does not say what a model does with
    a mask that it is handed.

    Args:
        config: Configuration of the text model.
    """
    sizes = {SLIDING: getattr(config, "sliding_window", None), CHUNKED: getattr(config, "attention_chunk_size", None)}
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    if not kinds:
        kinds = [SLIDING] if sizes[SLIDING] and getattr(config, "use_sliding_window", True) else [FULL]
    if other_kinds(config):
        return []
    reaches = tuple(Reach(kind, sizes.get(kind)) for kind in kinds)
    if any(reach.size is None for reach in reaches if reach.kind != FULL):
        return []
    single, by_kind = Sharing(reaches), Sharing(reaches, by_kind=True)
    return [by_kind] if len(reaches) > 1 else [single, by_kind]


def other_kinds(config: Any) -> list[str]:
    """Kinds of layers that no mask parts: a state runs from token to token, and from the first answer into the second.

    Others choose the keys that they look at by what is in them, the first answer's among them.
    """
    return [kind for kind in dict.fromkeys(getattr(config, "layer_types", None) or ()) if kind not in KINDS]


def longest_reach(config: Any, limit: int) -> int:
    """The widest window or chunk below a length, in positions; 0 where there is none.

    Rows that are no longer than a window do not show it, so a proof has to use longer ones, and need not use longer
    ones than will ever be trained on.
    """
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    return max((size for size in sizes if isinstance(size, int) and size < limit), default=0)
