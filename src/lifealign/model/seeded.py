"""Seeds torch's global generators for code that draws from them (dropout, new layers); keeps the caller's state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within the context, the CPU and ``device`` draw as after ``torch.manual_seed(seed)``; then both are restored.

    Generators of other devices are left alone. ``torch.manual_seed`` would seed all of them, even those that the
    program has not used yet.

    Args:
        seed: Seed of both generators.
        device: Where the model is.

    Example:
        >>> _ = torch.manual_seed(1)
        >>> expected = torch.rand(2)
        >>> with seeded(7, torch.device("cpu")):
        ...     drawn = torch.rand(2)
        >>> torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(7)))
        True
        >>> _ = torch.manual_seed(1)
        >>> with seeded(7, torch.device("cpu")):
        ...     _ = torch.rand(2)
        >>> torch.equal(torch.rand(2), expected)
        True
    """
    on_cpu = device.type == "cpu"
    before = torch.get_rng_state()
    own = None if on_cpu else device_state(device)
    try:
        torch.default_generator.manual_seed(seed)
        if not on_cpu:
            _seed_device(device, seed)
        yield
    finally:
        torch.set_rng_state(before)
        if own is not None:
            set_device_state(device, own)


def set_device_state(device: torch.device, state: torch.Tensor) -> None:
    """Puts the generator of a device where :func:`device_state` found it."""
    torch.get_device_module(device).set_rng_state(state, *_index(device))


def device_state(device: torch.device) -> torch.Tensor:
    """The state of the generator of a device other than the CPU."""
    state = torch.get_device_module(device).get_rng_state(*_index(device))
    assert isinstance(state, torch.Tensor)
    return state


def _seed_device(device: torch.device, seed: int) -> None:
    module = torch.get_device_module(device)
    if device.index is None or not hasattr(module, "device"):
        module.manual_seed(seed)
        return
    with module.device(device):  # only the current device of a kind can be seeded alone
        module.manual_seed(seed)


def _index(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is only one MPS device; its functions take no argument
