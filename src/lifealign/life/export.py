"""What a life has learnt, for other programs: an adapter for PEFT, a merged model, or a GGUF file for llama.cpp."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.life.card.export_card import ADAPTER_FILE, ExportFacts, gguf_card, merged_card
from lifealign.life.compose import Composition, compose_life, require_free, write_composition
from lifealign.life.disk import names
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.workspace import Workspace
from lifealign.model.gguf_lora import family_of, write_gguf_lora
from lifealign.model.merge import factors_by_module, merged_bytes, merged_model, save_merged
from lifealign.storage.files import write_bytes, write_text
from lifealign.storage.regular_file import read_bytes
from lifealign.storage.whole_folder import require_room, whole_folder

Form = Literal["adapter", "merged", "gguf"]
"""What is written: an adapter for PEFT, a whole model, or an adapter for llama.cpp."""
WrittenDtype = Literal["float32", "bfloat16", "float16"]

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BESIDE_WEIGHTS = 64 * 2**20
"""Bytes set aside for what lies beside the weights of a merged model; the largest tokenizers take some 35 MB."""
BESIDE_ADAPTER = 2**20


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: Where it is.
        form: What it is.
        version: The version that it is, or None for a composition, which no version ever was.
        weights: How much of each step's update is in it, by the step's name; empty if a version was asked for.
        base: The base model that it is for.
        dtype: Dtype of what was written.
    """

    folder: Path
    form: Form
    version: str | None
    weights: Mapping[str, float]
    base: str
    dtype: str


def export_life(
    work: Workspace,
    out: Path,
    *,
    form: Form = "adapter",
    without: Collection[str] = (),
    weights: Mapping[str, float] | None = None,
    as_of: str | None = None,
    dtype: WrittenDtype | None = None,
) -> Export:
    """Writes a version of a life, or a composition of its tasks, to a folder that appears whole or not at all.

    Args:
        work: The life; it is only read.
        out: A folder that does not exist or is empty, outside the life.
        form: ``adapter``: a folder for PEFT, for a version its files byte for byte. ``merged``: a whole model with its
            tokenizer, for transformers and whatever reads its folders. ``gguf``: a LoRA file for llama.cpp.
        without: Names of tasks to leave out, as in :meth:`lifealign.life.life.Life.compose`.
        weights: Weights of other tasks' updates, as there.
        as_of: The version to export, or after which a composition takes nothing; None for the last one.
        dtype: Dtype of what is written; None for that of the life's base if merged, else float32. An adapter for PEFT
            is float32 and nothing else.

    Raises:
        ConfigError: If a value is not one of those above, or for the reasons given in ``compose``.
        LifeError: If nothing was learnt by then, the life's method has no adapter, the folder is in use or cannot be
            written, its disk has too little room, or a file of the life is damaged.
        ModelError: If the base cannot be loaded or is not the life's, or cannot take this form.
    """
    written = _checked(work, out, form, dtype)
    chosen = _chosen(work, without, weights or {}, as_of)
    version, base = chosen.version, work.directory.manifest.base
    last = work.directory.versions[-1].name
    config = work.directory.json(names.adapter_config(version or last))
    _require_rank(chosen, config)
    if form == "adapter":
        require_room(out, sum(factor.nbytes for factor in chosen.adapter.values()) + BESIDE_ADAPTER)
        with whole_folder(out) as folder:
            _write_adapter(work, chosen, folder)
    elif form == "merged":
        model = work.base.model
        require_room(out, merged_bytes(model, DTYPES[written]) + BESIDE_WEIGHTS)
        scaling = config["lora_alpha"] / config["r"]
        merged = merged_model(model, chosen.adapter, scaling, DTYPES[written])
        with whole_folder(out) as folder:
            save_merged(merged, work.base.tokenizer, folder)
            write_text(folder / "README.md", merged_card(_facts(work, chosen, written)))
    else:
        facts = _facts(work, chosen, written)
        settings = work.base.model.config
        family_of(settings)
        require_room(out, sum(factor.nbytes for factor in chosen.adapter.values()) + BESIDE_ADAPTER)
        with whole_folder(out) as folder:
            write_gguf_lora(
                folder / ADAPTER_FILE,
                chosen.adapter,
                config["lora_alpha"],
                settings,
                name=version or "composition",
                base=facts.base_name,
                dtype=DTYPES[written],
            )
            write_text(folder / "README.md", gguf_card(facts))
    return Export(out, form, version, chosen.weights, base.model_name_or_path, written)


def _checked(work: Workspace, out: Path, form: Form, dtype: WrittenDtype | None) -> str:
    """The dtype to write, after checking everything that can be checked without reading a tensor."""
    if form not in get_args(Form):
        raise ConfigError(f"form: found {form!r}, expected one of {', '.join(get_args(Form))}")
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
    if dtype is not None and form == "adapter":
        raise ConfigError(
            f"dtype: found {dtype}, expected none, because an adapter for PEFT is float32, as it was learnt; a merged "
            "model and a GGUF file have one"
        )
    last = work.directory.versions[-1]
    if names.pool_weights(last.name) in last.files:
        method = work.config.method
        raise LifeError(
            f"{work.directory.path}: a life of {method.title} cannot be exported: {method.indivisible}; `Life.load` of "
            "lifealign loads it"
        )
    require_free(work.directory, out)
    if out.resolve() == Path.cwd():
        raise LifeError(f"{out}: found the folder that you are in, expected another one, which will be put in place")
    if form == "gguf" and out.suffix == ".gguf":
        raise LifeError(f"{out}: found the name of a file, expected that of a folder; the file in it is {ADAPTER_FILE}")
    base_dtype = work.config.model.dtype
    assert base_dtype != "auto"
    return dtype or (base_dtype if form == "merged" else "float32")


def _chosen(work: Workspace, without: Collection[str], weights: Mapping[str, float], as_of: str | None) -> Composition:
    """The adapter to export: that of a version, whatever the life's method, or a composition."""
    if without or weights:
        chosen = compose_life(work, without=without, weights=weights, as_of=as_of)
    else:
        version = work.directory.versions[-1 if as_of is None else work.directory.index(as_of)].name
        chosen = Composition({}, read_adapter_of(work.directory, version), version)
    if chosen.version == names.FIRST:
        what = f"{names.FIRST}, in which nothing was learnt" if work.steps else "nothing learnt yet"
        raise LifeError(
            f"{work.directory.path}: found {what}, expected a version that has learnt something; the base is "
            f"{work.directory.manifest.base.model_name_or_path}"
        )
    return chosen


def _write_adapter(work: Workspace, chosen: Composition, folder: Path) -> None:
    """Writes a folder for PEFT: a version's own files with its card, or a composition as ``compose`` writes it."""
    if chosen.version is None:
        write_composition(work, chosen, folder, None)
        return
    files = (names.adapter_weights, names.model_card, names.adapter_config)
    for name in (named(chosen.version) for named in files):
        path = work.directory.verified(name)
        write_bytes(folder / path.name, read_bytes(path, path.stat().st_size))


def _require_rank(chosen: Composition, config: Mapping[str, Any]) -> None:
    """Refuses factors whose rank is not the one that their scaling counts on."""
    for module, (lora_a, lora_b) in factors_by_module(chosen.adapter).items():
        if not lora_a.shape[0] == lora_b.shape[1] == config["r"]:
            raise ModelError(
                f"adapter: {module}: found rank {lora_a.shape[0]} and {lora_b.shape[1]}, expected {config['r']}, as in "
                "adapter_config.json"
            )


def _facts(work: Workspace, chosen: Composition, dtype: str) -> ExportFacts:
    """The facts on the card."""
    card = ""
    if chosen.version is not None:
        card = work.directory.verified(names.model_card(chosen.version)).read_text("utf-8")
    return ExportFacts(
        base=work.directory.manifest.base,
        model=work.config.model,
        license=work.config.license,
        version=chosen.version,
        steps=work.steps,
        weights=chosen.weights,
        dtype=dtype,
        version_card=card,
    )
