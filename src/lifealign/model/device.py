"""Where models go."""

from __future__ import annotations

import torch


def current_device() -> torch.device:
    """The accelerator that torch uses now, such as ``cuda:0``, or the CPU if there is none."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if kind is None else torch.device(kind.type, torch.accelerator.current_device_index())
