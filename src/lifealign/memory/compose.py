"""Composition: an adapter made of any of the updates that a life has learnt, each with a weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from lifealign.memory.update import Adapter


def compose(versions: Iterable[Mapping[str, Tensor]], weights: Sequence[float]) -> Adapter:
    r"""Adds weighted updates to the untrained adapter, factor by factor.

    With :math:`A_0, \ldots, A_T` the versions of a factor, :math:`A(w) = A_0 + \sum_t w_t (A_t - A_{t-1})`, for
    ``lora_A`` and ``lora_B`` alike, so the rank stays what it is. A weight of 0 leaves out every number that the step
    has written. What a model adds to its base is the product of the two factors: with a step left out, its products
    with other steps' updates go, too.

    Args:
        versions: The untrained adapter and the adapter after each step, in order; read one after the other.
        weights: One for each step, finite.

    Returns:
        Factors by name, float32; added up in float64.

    Raises:
        ValueError: If a weight is not finite, there is not one for every step, or the factors of two versions differ
            in name or shape.

    Example:
        >>> import torch
        >>> versions = [{"w": torch.tensor(numbers)} for numbers in ([1.0, 0.0], [1.0, 2.0], [4.0, 2.0])]
        >>> compose(versions, [0, 1])["w"], compose(versions, [1, 0.5])["w"]
        (tensor([4., 0.]), tensor([2.5000, 2.0000]))

    Reference:
        Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, for adding updates with weights.
    """
    if wrong := [weight for weight in weights if not math.isfinite(weight)]:
        raise ValueError(f"weights: found {wrong[0]}, expected a finite number")
    read = iter(versions)
    before = next(read)
    total = {name: factor.double() for name, factor in before.items()}
    shapes = {name: factor.shape for name, factor in before.items()}
    for weight, after in zip(weights, read, strict=True):
        if {name: factor.shape for name, factor in after.items()} != shapes:
            raise ValueError("versions: found two whose factors differ in name or shape, expected the same of all")
        if weight:
            for name, factor in after.items():
                total[name] += weight * (factor.double() - before[name].double())
        before = after
    return {name: factor.float() for name, factor in total.items()}


def whole_steps(weights: Sequence[float]) -> int | None:
    """How many steps weights take, if that is all up to one and none after it; otherwise None.

    Example:
        >>> whole_steps([1, 1, 0]), whole_steps([0, 0]), whole_steps([1, 0, 1]), whole_steps([0.5])
        (2, 0, None, None)
    """
    number = next((number for number, weight in enumerate(weights) if weight != 1), len(weights))
    return None if any(weights[number:]) else number
