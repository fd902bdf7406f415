"""What `lifealign doctor` finds: the machine, a model on it, the cache, and what is wrong, as JSON can hold it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from lifealign.cli.rates import ANSWER, ANSWERED, PROMPT, measure_rates
from lifealign.errors import ModelError
from lifealign.life.disk.names import MANIFEST
from lifealign.life.life import Life
from lifealign.model.auto_dtype import auto_dtype
from lifealign.model.base_model import load_base, load_outline
from lifealign.model.device import current_device
from lifealign.model.machine import this_processor, usable_cores
from lifealign.model.memory_need import memory_need
from lifealign.model.settings import AdapterConfig, Dtype, ModelConfig
from lifealign.storage.mounts import network_filesystem
from lifealign.storage.user_cache import CACHE_VARIABLE, user_cache

Part = dict[str, Any]

SIDE = {"cpu": 1024}
"""Rows of the square matrices whose product is timed, by kind of device; anywhere else 4096."""
PROCESS = 700 * 2**20
"""Bytes of Python and its libraries on a CPU (400 MiB, measured), and of what loading a model leaves behind (260)."""


def examine(target: str, batch_size: int) -> Part:
    """Everything, in four parts (``versions``, ``machine``, ``model``, ``cache``), and ``advice``: one text per fault.

    Args:
        target: A model, as ``model.model_name_or_path`` takes it, or the directory of a life.
        batch_size: Pairs in a forward pass.
    """
    machine, cache = _machine(), _cache()
    model = _model(target, batch_size, machine)
    found = {"versions": _versions(), "machine": machine, "model": model, "cache": cache}
    return found | {"advice": list(_advice(found, target))}


def _versions() -> Part:
    """Versions of what decides the results."""
    packages = ("lifealign", "torch", "transformers", "peft")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _machine() -> Part:
    processor, device = this_processor(), current_device()
    total, available = memory(device)
    chosen = auto_dtype(device)
    return {
        "processor": processor.name,
        "instructions": None if processor.instructions is None else list(processor.instructions),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory": total,
        "memory_available": available,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "gflops": {name: _gflops(getattr(torch, name), device) for name in ("bfloat16", "float32")},
        "auto_dtype": chosen.dtype,
        "auto_dtype_because": chosen.reason,
    }


def memory(device: torch.device) -> tuple[int | None, int | None]:
    """Bytes of memory in all and still free, where the model would be; None if the system does not say."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total, free
    said: dict[str, int] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            said[line.split(":")[0]] = int(line.split()[1]) * 1024
    return said.get("MemTotal"), said.get("MemAvailable")


def _gflops(dtype: torch.dtype, device: torch.device) -> float:
    """Billions of additions and multiplications a second in a product of two square matrices, the best of five."""
    side = SIDE.get(device.type, 4096)
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        matrix @ matrix
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - start)
    return round(2 * side**3 / min(seconds[1:]) / 1e9, 1)


def _model(target: str, batch_size: int, machine: Part) -> Part:
    """The model on this machine; if it cannot be loaded or does not fit, ``missing`` says why, and nothing is timed."""
    found: Part = {"name": target, "batch_size": batch_size, "prompt_tokens": PROMPT, "answer_tokens": ANSWER}
    config, lora = ModelConfig(model_name_or_path=target), AdapterConfig()
    if (Path(target) / MANIFEST).exists():
        life = Life.open(target).config
        config, lora = life.model, life.lora
    dtype: Dtype = machine["auto_dtype"] if config.dtype == "auto" else config.dtype
    found |= {"model": config.model_name_or_path, "dtype": dtype}
    try:
        outline = load_outline(config)
        found["parameters"] = sum(one.numel() for one in outline.parameters())
        need = memory_need(
            outline, dtype, lora, pairs=batch_size, prompt=PROMPT, answer=ANSWER, in_4bit=config.load_in_4bit
        )
        process = PROCESS if machine["device"] == "cpu" else 0
        found["memory_need"] = {**vars(need), "process": process, "total": need.total + process}
    except ModelError as error:
        return found | {"missing": str(error)}
    except ValueError as error:
        found["memory_need_unknown"] = str(error)
    else:
        available = machine["memory_available"]
        if available is not None and found["memory_need"]["total"] > available:
            return found | {"missing": "too little memory"}
    try:
        base = load_base(config.model_copy(update={"dtype": dtype}))
        rates = measure_rates(base, lora, batch_size)
    except ModelError as error:
        return found | {"missing": str(error)}
    return found | {
        "sft_tokens_per_second": round(rates.sft_tokens_per_second, 1),
        "preference_pairs_per_second": round(rates.preference_pairs_per_second, 2),
        "generated_tokens_per_second": round(rates.generated_tokens_per_second, 1),
        "answers_at_a_time": ANSWERED,
        "peak_memory": rates.peak_memory,
    }


def _cache() -> Part:
    """The user's cache: where it is, whether it can be written, and the size of each entry in it."""
    folder = user_cache()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    entries: dict[str, int] = {}
    with suppress(OSError):
        entries = {path.name: _size(path) for path in sorted(folder.iterdir())}
    network = {str(path): kind for path in (folder, Path.cwd()) if (kind := network_filesystem(path))}
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return {"folder": str(folder), "writable": writable, "entries": entries, "network": network}


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)


def _advice(found: Part, target: str) -> Iterator[str]:
    """One line for everything that is wrong, with the way out."""
    machine, model, cache = found["machine"], found["model"], found["cache"]
    if model.get("missing") == "too little memory":
        needed = model["memory_need"]["total"] / 2**30
        yield (
            f"{target} needs about {needed:.1f} GiB to be trained in {model['dtype']} and "
            f"{machine['memory_available'] / 2**30:.1f} GiB are free; take a smaller model or --batch-size"
            + (", or model.dtype=bfloat16" if model["dtype"] == "float32" else "")
        )
    elif "missing" in model:
        yield model["missing"]
    limit = os.environ.get("OMP_NUM_THREADS")
    if limit is not None and 2 * machine["threads"] < machine["cores"] and machine["device"] == "cpu":
        yield (
            f"OMP_NUM_THREADS={limit}: torch uses {machine['threads']} of {machine['cores']} cores; unset it, unless "
            "several runs share the machine"
        )
    if not cache["writable"]:
        yield (
            f"{cache['folder']} cannot be written, so what is expensive is computed in every run; set {CACHE_VARIABLE} "
            "to a folder that can"
        )
    life = Path(target)
    network = cache["network"] | ({target: kind} if life.is_dir() and (kind := network_filesystem(life)) else {})
    for path, kind in network.items():
        yield f"{path} is on a network filesystem ({kind}), where file locks may not hold; let one machine write"
