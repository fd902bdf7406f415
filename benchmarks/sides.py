"""One side of a comparison, in a process of its own: loads, warms up, works under a clock, prints one line of JSON.

    python -m benchmarks.sides '{"side": "ours", "work": "preference", ...}'

Loading, tokenising and one warm-up batch are outside the clock on both sides; reference log-probabilities are inside.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from benchmarks.rows import rows_of
from peft import LoraConfig, get_peft_model_state_dict
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lifealign.data.pair import Pair
from lifealign.methods.lifealign import LifeAlign
from lifealign.methods.seqft import SeqFT
from lifealign.model.adapter import attach_lora, read_adapter, write_adapter
from lifealign.model.base_model import load_base
from lifealign.model.runtime import Runtime
from lifealign.model.settings import AdapterConfig, ModelConfig
from lifealign.model.tokens import TokenizedPair, tokenize_pairs
from lifealign.training.objectives import PreferenceObjective, SupervisedObjective
from lifealign.training.peak_memory import peak_memory_bytes
from lifealign.training.settings import PreferenceConfig, SFTConfig
from lifealign.training.stage import plan_batches, train_stage

BETA, MAX_LENGTH, SEED = 0.1, 512, 1


@dataclass(frozen=True)
class Spec:
    """What one side does; the same for all sides of a comparison but for ``side`` and ``skip``."""

    side: str  # ours, trl
    work: str  # preference, task, sft
    model: str
    dtype: str
    data: str
    name: str
    pairs: int
    batch: int
    epochs: int
    threads: int
    max_tokens: int = 2048
    precompute: bool = True  # TRL: reference log-probabilities before training, or in every step
    rate: float = 1e-4
    sft_rate: float = 1e-3
    focal: bool = False  # ours: FPO in place of DPO
    skip: float = 0.0  # ours: mastered pairs are left out
    start: str = ""  # adapter to start from; "" for a new one
    keep: str = ""  # where ours writes its adapter at the end


def main(spec: Spec) -> dict[str, Any]:
    torch.set_num_threads(spec.threads)
    base = load_base(ModelConfig(model_name_or_path=spec.model, dtype=spec.dtype))
    pairs = rows_of(spec.name, Path(spec.data) if spec.data else None, spec.pairs + spec.batch)
    work = {"ours": ours, "trl": trl}[spec.side](spec, base, pairs)
    loaded = peak_memory_bytes()
    started = time.perf_counter()
    done = work()
    seconds, losses = time.perf_counter() - started, done["losses"]
    return {
        "seconds": seconds,
        "pairs": spec.pairs * spec.epochs,
        "tokens": done["tokens"],
        "skipped": done["skipped"],
        "loss_first": losses[0],
        "loss_last": sum(losses[-max(1, len(losses) // spec.epochs) :]) / max(1, len(losses) // spec.epochs),
        "peak_bytes": peak_memory_bytes(),
        "loaded_bytes": loaded,
    }


# -- ours --------------------------------------------------------------------------------------------------------------


def ours(spec: Spec, base: Any, raw: Sequence[Pair]) -> Callable[[], dict[str, Any]]:
    model = attach_lora(base, AdapterConfig(), SEED)
    if spec.start:
        write_adapter(model, load_file(spec.start))
    runtime = Runtime.prepare(model, base.tokenizer, base.proven(model, MAX_LENGTH), max_tokens=spec.max_tokens or None)
    tokenized, _ = tokenize_pairs(base.tokenizer, raw, MAX_LENGTH)
    pairs, warm = tokenized[: spec.pairs], tokenized[spec.pairs :]
    stage: dict[str, Any] = {"num_train_epochs": spec.epochs, "per_device_train_batch_size": spec.batch}
    stage |= {"gradient_accumulation_steps": 1}
    preference = PreferenceConfig(learning_rate=spec.rate, skip_mastered=spec.skip, **stage)
    sft = SFTConfig(learning_rate=spec.sft_rate, **stage)

    skipped: list[float] = []

    def work(some: Sequence[TokenizedPair], epochs: int) -> list[float]:
        losses: list[float] = []
        once = {"num_train_epochs": epochs}
        if spec.work in ("task", "sft"):
            log = train_stage(
                runtime, some, SupervisedObjective(), sft.model_copy(update=once), SeqFT(), "t", seed=SEED
            )
            losses = [row["loss"] for row in log]
        if spec.work in ("task", "preference"):
            with runtime.base_policy():
                reference = dict(zip((one.key for one in some), runtime.score(some, 16), strict=True))
            goal, settings = PreferenceObjective(BETA, reference), preference.model_copy(update=once)
            method: Any = LifeAlign() if spec.focal else SeqFT()
            log = train_stage(runtime, some, goal, settings, method, "t", seed=SEED)
            losses = [row["loss"] for row in log]
            skipped[:] = [row.get("skipped", 0.0) for row in log]
        return losses

    before = read_adapter(model)
    work(warm, 1)
    write_adapter(model, before)

    def timed() -> dict[str, Any]:
        losses = work(pairs, spec.epochs)
        if spec.keep:
            save_file(read_adapter(model), spec.keep)
        return {"losses": losses, "tokens": sum(map(len, pairs)) * spec.epochs, "skipped": fmean(skipped or [0.0])}

    return timed


# -- TRL ---------------------------------------------------------------------------------------------------------------


def trl(spec: Spec, base: Any, raw: Sequence[Pair]) -> Callable[[], dict[str, Any]]:
    """TRL at its best on the same rows: no checkpointing, no logging, our batches in our order."""
    tokenized, _ = tokenize_pairs(base.tokenizer, raw, MAX_LENGTH)
    usable = {one.key: pair for one in tokenized for pair in raw if pair.key == one.key}
    settings = PreferenceConfig(
        num_train_epochs=1, per_device_train_batch_size=spec.batch, gradient_accumulation_steps=1
    )
    pairs, warm = tokenized[: spec.pairs], tokenized[spec.pairs :]
    order = [one for batch in plan_batches(pairs, settings, SEED) for one in batch.pairs]
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, task_type="CAUSAL_LM")
    folder = tempfile.mkdtemp()

    def train(some: Sequence[TokenizedPair], epochs: int) -> list[float]:
        """SFT, if it is part of the work, and preference; the base comes back without an adapter."""
        rows, model, adapter = [_conversation(usable[one.key]) for one in some], base.model, spec.start
        if spec.work == "task":
            trainer = _sft_trainer(spec, model, base.tokenizer, rows, epochs, folder, lora)
            trainer.train()
            adapter = f"{folder}/sft.safetensors"
            save_file(get_peft_model_state_dict(trainer.model), adapter)
            model = trainer.model.unload()
        # Precomputing and tokenising happen in the constructor, and so under the clock.
        trainer = _dpo_trainer(spec, model, base.tokenizer, rows, epochs, folder, lora)
        if adapter:
            set_peft_model_state_dict(trainer.model, load_file(adapter))
        seen = _Losses(trainer)
        trainer.train()
        trainer.model.unload()
        return seen.values

    train(warm, 1)

    def timed() -> dict[str, Any]:
        return {"losses": train(order, spec.epochs), "tokens": sum(map(len, pairs)) * spec.epochs, "skipped": 0.0}

    return timed


def _conversation(pair: Pair) -> dict[str, Any]:
    answers = {name: [{"role": "assistant", "content": getattr(pair, name)}] for name in ("chosen", "rejected")}
    return {"prompt": [message._asdict() for message in pair.prompt]} | answers


def _shared(spec: Spec, epochs: int, folder: str) -> dict[str, Any]:
    cpu = not torch.cuda.is_available()
    return {
        "output_dir": folder,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": spec.batch,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,  # below 1: a share of all steps
        "use_cpu": cpu,
        "bf16": spec.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "report_to": "none",
        "logging_steps": 10**6,
        "save_strategy": "no",
        "disable_tqdm": True,
        "max_length": MAX_LENGTH,
        "train_sampling_strategy": "sequential",
        "seed": SEED,
    }


def _dpo_trainer(
    spec: Spec, model: Any, tokenizer: Any, rows: list[dict[str, Any]], epochs: int, folder: str, lora: Any
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]

    arguments = DPOConfig(
        **_shared(spec, epochs, folder),
        learning_rate=spec.rate,
        beta=BETA,
        precompute_ref_log_probs=spec.precompute,
        precompute_ref_batch_size=32,
    )
    return DPOTrainer(
        model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
    )


def _sft_trainer(
    spec: Spec, model: Any, tokenizer: Any, rows: list[dict[str, Any]], epochs: int, folder: str, lora: Any
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig as TrlConfig  # type: ignore[attr-defined]
    from trl import SFTTrainer  # type: ignore[attr-defined]

    chosen = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    arguments = TrlConfig(**_shared(spec, epochs, folder), learning_rate=spec.sft_rate, completion_only_loss=True)
    return SFTTrainer(
        model,
        args=arguments,
        train_dataset=Dataset.from_list(chosen),
        processing_class=tokenizer,
        peft_config=lora,
    )


class _Losses:
    """The loss of every step of a trainer, without switching its logging on."""

    def __init__(self, trainer: Any) -> None:
        self.values: list[float] = []
        plain = trainer.compute_loss

        def noted(*given: Any, **options: Any) -> Any:
            loss = plain(*given, **options)
            self.values.append(float((loss[0] if isinstance(loss, tuple) else loss).detach()))
            return loss

        trainer.compute_loss = noted


if __name__ == "__main__":
    random.seed(SEED)
    print(json.dumps(main(Spec(**json.loads(sys.argv[1])))), flush=True)
