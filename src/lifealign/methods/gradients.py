"""Gradients as one vector, and the nearest gradient that does not conflict with given others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import Parameter


def gradient_vector(
    parameters: Sequence[Parameter], gradients: Sequence[Tensor] | None = None
) -> Float[Tensor, " numbers"]:
    """Gradients of all parameters as one float64 vector on the CPU.

    Args:
        parameters: The parameters, in the order of the vector.
        gradients: Their gradients, or None for those in ``parameter.grad``; a missing gradient counts as zero.
    """
    held = [parameter.grad for parameter in parameters] if gradients is None else gradients
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).detach().flatten().double().cpu()
            for parameter, gradient in zip(parameters, held, strict=True)
        ]
    )


def apply_gradient(parameters: Sequence[Parameter], vector: Float[Tensor, " numbers"]) -> None:
    """Makes a vector the gradients that parameters hold, in place; the inverse of :func:`gradient_vector`."""
    for parameter, part in zip(parameters, vector.split([parameter.numel() for parameter in parameters]), strict=True):
        parameter.grad = part.reshape(parameter.shape).to(parameter)


def project_to_cone(
    gradient: Float[Tensor, " numbers"], memories: Float[Tensor, "tasks numbers"], margin: float = 0.0
) -> Float[Tensor, " numbers"]:
    r"""The gradient nearest to a given one that has no negative product with the gradient of any memory.

    Solves the dual of GEM's quadratic program, one unknown per task,

    .. math::  \min_{v \ge \text{margin}} \tfrac12 \lVert G^\top v + g \rVert^2, \qquad \tilde g = g + G^\top v

    as non-negative least squares in :math:`v - \text{margin}`, on the triangular factor of :math:`G^\top`, in float64.

    Args:
        gradient: g, float64.
        memories: G, one gradient per earlier task.
        margin: Lower bound of v, at least 0. 0 changes no more than the constraints require; above 0 the result leans
            towards the memories. Either way a gradient that violates no constraint is returned as it is.

    Returns:
        The projected gradient; its products with the rows of ``memories`` are at least 0, up to rounding.

    Example:
        >>> memories = torch.tensor([[1.0, 0.0]]).double()
        >>> project_to_cone(torch.tensor([-2.0, 3.0]).double(), memories)
        tensor([0., 3.], dtype=torch.float64)
        >>> project_to_cone(torch.tensor([2.0, 3.0]).double(), memories, margin=0.5)
        tensor([2., 3.], dtype=torch.float64)

    Reference:
        Lopez-Paz and Ranzato, Gradient Episodic Memory, NeurIPS 2017 (arXiv:1706.08840), Eq. 11.
    """
    if (memories @ gradient >= 0).all():
        return gradient
    pushed = gradient + margin * memories.sum(dim=0)
    orthonormal, triangle = torch.linalg.qr(memories.T)
    unknowns, _ = nnls(triangle.numpy(), -(orthonormal.T @ pushed).numpy())
    return pushed + memories.T @ torch.from_numpy(unknowns)


def project_to_halfspace(
    gradient: Float[Tensor, " numbers"], memory: Float[Tensor, " numbers"]
) -> Float[Tensor, " numbers"]:
    r"""Removes from a gradient what conflicts with a memory's: :math:`g - \frac{g^\top m}{m^\top m} m` if any does.

    Example:
        >>> project_to_halfspace(torch.tensor([-2.0, 3.0]), torch.tensor([4.0, 0.0]))
        tensor([0., 3.])

    Reference:
        Chaudhry et al., Efficient Lifelong Learning with A-GEM, ICLR 2019 (arXiv:1812.00420), Eq. 11.
    """
    product = gradient @ memory
    return gradient if product >= 0 else gradient - product / (memory @ memory) * memory
