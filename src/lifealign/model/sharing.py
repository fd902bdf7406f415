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
"""Kinds of layers, as transformers' configurations name them, for which a mask can hide one answer from the other."""


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
        """Which keys are near enough for each query, measured in position ids, not in indices of the row; None for all.

        The second answer of a row comes after the first, but its position ids continue from the prompt's end. Measured
        in indices, it would lose sight of as many tokens of the prompt as the first answer has.
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
        by_kind: Whether the model takes a mapping from kind to mask; otherwise it takes one mask for all its layers.
        packed: Whether several pairs can stand side by side in one row (:mod:`lifealign.model.packing`).
    """

    reaches: tuple[Reach, ...] = (Reach(),)
    by_kind: bool = False
    packed: bool = False

    def masks(
        self, visible: Bool[Tensor, "rows 1 length length"], positions: Int[Tensor, "rows length"], dtype: torch.dtype
    ) -> Tensor | Mapping[str, Tensor]:
        """The masks that replace a model's own.

        Args:
            visible: Which keys a query may see, judging by answers and causal order only.
            positions: Position id of every token.
            dtype: Dtype of the model.

        Returns:
            Masks that attention adds to its scores: 0 where a key is visible, the lowest number of the dtype elsewhere.
        """
        found = {}
        for reach in self.reaches:
            near = reach.visible(positions)
            seen = visible if near is None else visible & near[:, None]
            found[reach.kind] = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        return found if self.by_kind else next(iter(found.values()))

    def unused_masks(self, device: torch.device) -> Tensor | Mapping[str, Tensor]:
        """What a model is given in place of masks for packed rows, so that it makes none of its own."""
        unused = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=device)
        return {reach.kind: unused for reach in self.reaches} if self.by_kind else unused

    def __str__(self) -> str:
        """``full attention``, or the windows: ``full attention, sliding attention (4096)``."""
        return ", ".join(
            reach.kind.replace("_", " ") + ("" if reach.size is None else f" ({reach.size})") for reach in self.reaches
        )


def candidates(config: Any) -> list[Sharing]:
    """Forms in which a model of this configuration might take shared prompts, the most likely first.

    Each still has to be proven (:mod:`lifealign.model.proof`): a configuration does not say what a model does with a
    mask that it is given.

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
    single, by_kind = Sharing(reaches, packed=True), Sharing(reaches, by_kind=True, packed=True)
    return [by_kind] if len(reaches) > 1 else [single, by_kind]


def other_kinds(config: Any) -> list[str]:
    """Kinds of layers in which no mask keeps two answers apart.

    Some carry a state from token to token, and so from the first answer into the second. Others choose the keys that
    they look at by content, including those of the first answer.
    """
    return [kind for kind in dict.fromkeys(getattr(config, "layer_types", None) or ()) if kind not in KINDS]


def longest_reach(config: Any, limit: int) -> int:
    """The widest window or chunk below a length, in positions; 0 if there is none.

    Rows no longer than a window do not reveal it, so a proof has to use longer ones. A window that no row will ever
    exceed need not be considered.
    """
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    return max((size for size in sizes if isinstance(size, int) and size < limit), default=0)
