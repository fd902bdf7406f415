"""The dtype that ``model.dtype: auto`` stands for: the one in which this machine takes the shorter training step.

On processors without bfloat16 instructions a product in bfloat16 takes about four times as long as in float32; they
take float32, and nothing is timed. On others it takes between a third of the time and nearly all of it; a small step is
timed in both, once, and the times are kept in the user's cache if they repeat: what else runs on a machine can make
either look slow.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from lifealign.errors import LifeError
from lifealign.model.machine import this_processor
from lifealign.model.settings import Dtype, ModelConfig
from lifealign.storage.files import read_json, write_json
from lifealign.storage.user_cache import user_cache

logger = logging.getLogger(__name__)

MACHINE = "machine.json"
"""File of the user's cache with the times measured on this machine."""
WORTH_ITS_MEMORY = 1.05
"""How many times as long as in float32 a step may take in bfloat16, which needs half the memory."""

ROWS, LENGTH, WIDTH, HEADS, INNER, LAYERS, RANK = 2, 128, 512, 8, 1536, 2, 8  # a small model's; tenths of a second
ROUNDS, MOST_ROUNDS = 4, 16  # the first one warms up
REPEATS = 1.1
"""How many times as long as the shortest of its rounds the next may take for a time to count as repeated."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds that the same training step takes on a machine in each dtype.

    Attributes:
        bfloat16: In bfloat16.
        float32: In float32.
        repeated: Whether both were measured more than once; if not, other work on the machine may have decided.
    """

    bfloat16: float
    float32: float
    repeated: bool = True

    @property
    def dtype(self) -> Dtype:
        """The dtype to take: the faster one, and bfloat16 if there is little between them."""
        return "bfloat16" if self.bfloat16 <= WORTH_ITS_MEMORY * self.float32 else "float32"

    @property
    def reason(self) -> str:
        """How the dtype compares with the other one, in words.

        Example:
            >>> StepTimes(bfloat16=0.8, float32=0.2).reason
            'on this processor a step takes 0.25 of its time in bfloat16'
        """
        if self.dtype == "float32":
            return f"on this processor a step takes {self.float32 / self.bfloat16:.2f} of its time in bfloat16"
        return f"on this processor a step takes {self.bfloat16 / self.float32:.2f} of its time in float32"


@dataclass(frozen=True)
class AutoDtype:
    """What ``auto`` stands for on this machine, and why."""

    dtype: Dtype
    reason: str

    def __str__(self) -> str:
        return f"base weights in {self.dtype}: {self.reason}"


def auto_dtype(device: torch.device) -> AutoDtype:
    """The dtype that ``auto`` stands for here.

    On a CUDA device it is bfloat16 if the device computes in it by itself, else float32, and float32 on a processor
    that is known to have no instructions for it. Elsewhere it is the one in which a training step is faster
    (:func:`step_times`); within 5 % bfloat16.

    Args:
        device: Where the model will be.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return AutoDtype("bfloat16", "the GPU computes in it")
        return AutoDtype("float32", "the GPU has no bfloat16 of its own")
    if device.type == "cpu" and this_processor().multiplies_in_bfloat16 is False:
        return AutoDtype("float32", "the processor has no instructions for bfloat16")
    times = step_times(device)
    return AutoDtype(times.dtype, times.reason + ("" if times.repeated else "; other work here may have decided that"))


def settled(config: ModelConfig, device: torch.device) -> ModelConfig:
    """The settings with ``auto`` replaced by the dtype that it stands for here, which is said in the log."""
    if config.dtype != "auto":
        return config
    chosen = auto_dtype(device)
    logger.info("%s", chosen)
    return config.model_copy(update={"dtype": chosen.dtype})


def step_times(device: torch.device) -> StepTimes:
    """Times of a training step on this machine, measured once and kept in the user's cache if they repeat.

    They are measured again for another processor, number of threads or version of torch, and where the file is missing
    or damaged. Deleting it is safe: a life keeps the dtype that it was made with.

    Args:
        device: Where to compute.
    """
    path, place = user_cache() / MACHINE, measured_on(device)
    kept: dict[str, Any] = {}
    try:
        if path.exists():
            kept = _checked(read_json(path))
    except (LifeError, ValueError) as error:
        logger.info("%s: damaged, so it is measured again (%s)", path, error)
    if place in kept:
        return StepTimes(**kept[place])
    times = measure_step_times(device)
    if not times.repeated:
        return times
    try:
        write_json(path, kept | {place: {"bfloat16": times.bfloat16, "float32": times.float32}})
    except LifeError as error:
        logger.info("%s; this is measured again when it is needed later", error)
    return times


def measured_on(device: torch.device) -> str:
    """Everything that the times depend on, as the file names it."""
    threads = torch.get_num_threads()
    return f"{this_processor()}, {device.type}, {threads} threads, torch {torch.__version__}"


def _checked(kept: Any) -> dict[str, Any]:
    """The content of the file, once checked to be times by place.

    Raises:
        ValueError: If it is anything else.
    """
    entries = list(kept.values()) if isinstance(kept, dict) else [None]
    for times in entries:
        seconds = list(times.values()) if isinstance(times, dict) and sorted(times) == ["bfloat16", "float32"] else []
        if not seconds or not all(isinstance(one, float) and 0 < one < math.inf for one in seconds):
            raise ValueError("found something else, expected seconds in bfloat16 and in float32, by machine")
    return dict(kept)


def measure_step_times(device: torch.device) -> StepTimes:
    """Times a training step in both dtypes: the shortest of several rounds in turn, after one that warms up.

    Rounds go on until the shortest time of each was nearly reached twice, or there were sixteen of them.

    The step has what a LoRA step on a transformer spends its time on: products with frozen matrices, attention through
    SDPA and the passes over activations, forward and backward, where the only gradients kept are those of small
    float32 factors. It draws its numbers from a generator of its own.
    """
    stacks = {dtype: _Stack(dtype, device) for dtype in (torch.bfloat16, torch.float32)}
    found: dict[torch.dtype, list[float]] = {dtype: [] for dtype in stacks}
    repeated = False
    for round_number in range(MOST_ROUNDS):
        for dtype, stack in stacks.items():
            seconds = _timed(stack, device)
            if round_number:
                found[dtype] = sorted([*found[dtype], seconds])
        repeated = round_number > 1 and all(times[1] <= REPEATS * times[0] for times in found.values())
        if repeated and round_number + 1 >= ROUNDS:
            break
    return StepTimes(found[torch.bfloat16][0], found[torch.float32][0], repeated)


def _timed(stack: _Stack, device: torch.device) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    with torch.enable_grad():
        stack.loss().backward()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


class _Stack:
    """A few decoder layers with frozen matrices in one dtype and float32 LoRA factors on query and value."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)

        def numbers(*shape: int) -> Tensor:
            drawn = torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
            return (drawn / math.sqrt(shape[-1])).to(device)

        shapes = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH)}
        shapes |= {"gate": (INNER, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}
        self.frozen = {name: numbers(*shape).to(dtype) for name, shape in shapes.items()}
        self.factors = {
            name: (numbers(RANK, WIDTH).requires_grad_(), numbers(WIDTH, RANK).requires_grad_()) for name in ("q", "v")
        }
        self.inputs = numbers(ROWS, LENGTH, WIDTH).to(dtype)

    def loss(self) -> Tensor:
        """A number that depends on every factor."""
        hidden = self.inputs
        for _ in range(LAYERS):
            read = rms_norm(hidden.float(), (WIDTH,)).to(hidden.dtype)
            query, key, value = (self._adapted(name, read).unflatten(-1, (HEADS, -1)).transpose(1, 2) for name in "qkv")
            seen = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
            hidden = hidden + seen @ self.frozen["o"].T
            read = rms_norm(hidden.float(), (WIDTH,)).to(hidden.dtype)
            inner = silu(read @ self.frozen["gate"].T) * (read @ self.frozen["up"].T)
            hidden = hidden + inner @ self.frozen["down"].T
        return hidden.float().square().mean()

    def _adapted(self, name: str, read: Tensor) -> Tensor:
        """A projection, with its LoRA factors if it has some."""
        plain = read @ self.frozen[name].T
        if name not in self.factors:
            return plain
        down, up = self.factors[name]
        return plain + (read.float() @ down.T @ up.T).to(plain.dtype)
