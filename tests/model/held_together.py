"""Can a family's base be held together, and does it then compute the same? One process that holds all parts tells.

    python -m tests.model.held_together [FAMILY ...]

Prints a line for each family that this package can train: ``equal`` if log-probabilities, gradients and greedy answers
are those of the whole base, bit for bit, and a pass goes through the layers once; else what is different.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from tests.model import families

from lifealign.errors import ModelError
from lifealign.model.runtime import Runtime
from lifealign.model.sharded import attendance, decoder_of, shard


def found(runtime: Runtime) -> str:
    """What holding the base together changes."""
    try:
        decoder, _ = decoder_of(runtime.model)
    except ModelError:
        return "refused"
    trained: list[bool] = []
    decoder.register_forward_hook(lambda module, given, output: trained.append(output[0].requires_grad))
    whole = computed(runtime)
    shard(runtime.model, 1)
    trained.clear()
    cut = computed(runtime)
    faults = {
        "other log-probabilities": not torch.equal(whole[0], cut[0]),
        "other gradients": any(not torch.equal(whole[1][name], cut[1][name]) for name in whole[1]),
        "other answers": whole[2] != cut[2],
        f"{sum(trained)} passes for one": sum(trained) != 1,  # those of answers have no gradient
        "a pass that cannot be attended": not attendance(runtime.model, 1).requires_grad,
    }
    return ", ".join(fault for fault, there in faults.items() if there) or "equal"


def computed(runtime: Runtime) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[str]]:
    """Log-probabilities of a few pairs, their gradient, and answers."""
    pairs = families.long_pairs()
    logps = runtime.policy(runtime.batch(pairs, ("chosen", "rejected")))
    gradients = families.gradients(runtime, logps)
    return logps.detach(), dict(gradients), families.answers_alone_and_together(runtime)[0]


def lines(names: Sequence[str]) -> Iterator[str]:
    """A line for each family that can be trained."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            _, runtime = families.try_family(name, Path(folder) / "base")
            if runtime is not None:
                yield f"{name}: {found(runtime)}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for line in lines(sys.argv[1:] or families.FAMILIES):
        print(line, flush=True)
