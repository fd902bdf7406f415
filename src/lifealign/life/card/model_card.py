"""The model card: the README.md beside every version's adapter, for readers who have the adapter without its life."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from lifealign.evaluation.matrix import ScoreMatrix, part_text
from lifealign.evaluation.metrics import METRICS, PERPLEXITY, examples_text, general_line, metric_of
from lifealign.life.card.loading_code import life_code, peft_code
from lifealign.life.card.markdown import fenced, grid, listed, plain, portable
from lifealign.methods.base import Method, Paper
from lifealign.model.embedded import EMBEDDED_HUB_ID

HUB_ID = re.compile(r"(?!.*(?:--|\.\.))\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)
"""An id on the hub, with its owner."""
MOST_TASKS = 16
"""Most tasks and steps that a card shows, the latest ones: with all of them, the cards of a long life would be most of
it. Also the most missing scores that it names."""
HUB_LICENSES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0
    gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail
    openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
"""Short names that the hub accepts for a licence. It may know more by now: any other name is written as ``other`` with
a ``license_name``, which the hub accepts as well."""


@dataclass(frozen=True)
class CardFacts:
    """The facts on a card.

    Attributes:
        version: Name of the version, ``02-tone``.
        base: The base model: hub id, or path of a folder or a ``.gguf`` file.
        revision: Its revision, if one was asked for.
        fingerprint: Content hash of its weights.
        embedded: Whether its weights are those of the embedded package, which are quantised.
        method: The method, with its options.
        is_adapter: Whether the version is an adapter that PEFT loads; otherwise it is a pool of prompts.
        steps: Names of the steps so far, this one last.
        tasks: Per task in order: ``name``, ``step``, ``train_pairs``, ``test_pairs``, ``supersedes``.
        matrices: Score matrices by metric, this step's row included.
        general: Figures on general text, or None.
        settings: The resolved settings, as JSON can hold them.
        environment: Versions of libraries.
        license: Licence of the adapter, or None if it was not given.
        general_hole: Why there are no figures on general text although they were requested.
        retention: What the step has cost earlier tasks, in words, a line each; empty without a gate.
        adopted: Name of the step whose adapter came from another trainer, or None.
    """

    version: str
    base: str
    revision: str | None
    fingerprint: str
    embedded: bool
    method: Method
    is_adapter: bool
    steps: Sequence[str]
    tasks: Sequence[Mapping[str, Any]]
    matrices: Mapping[str, ScoreMatrix]
    general: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    license: str | None
    general_hole: str | None = None
    retention: Sequence[str] = ()
    adopted: str | None = None

    @property
    def learnt_here(self) -> list[str]:
        """Names of the tasks that were learnt in this step."""
        return [task["name"] for task in self.tasks if task["step"] == self.version]


def model_card(facts: CardFacts) -> str:
    """A model card in Markdown with the front matter that the Hugging Face hub reads.

    The same facts give the same text: it contains no time, and only the last part of every absolute path.
    """
    base = EMBEDDED_HUB_ID if facts.embedded else portable(facts.base)
    options = [(key, value) for key, value in portable(facts.method.model_dump(mode="json")).items()]
    code = life_code("LIFE", facts.version)
    if facts.is_adapter:
        place, model = EMBEDDED_HUB_ID if facts.embedded else facts.base, facts.settings["model"]
        code = peft_code(
            place,
            facts.version,
            dtype=model["dtype"],
            in_4bit=model["load_in_4bit"],
            revision=None if facts.embedded else facts.revision,
            elsewhere=True,
        )
    tasks = [
        [_named(task), task["step"], task["train_pairs"], task["test_pairs"]] for task in facts.tasks[-MOST_TASKS:]
    ]
    card: str = _template().render(
        front=_front_matter(facts),
        facts=facts,
        base=base,
        taught=_taught(facts),
        code=fenced("python", code),
        tasks_left_out=max(0, len(facts.tasks) - MOST_TASKS),
        tasks=grid(["task", "learnt in", "training pairs", "held-out pairs"], tasks, numbers_from=2),
        tables=[_scores(matrix, facts) for matrix in facts.matrices.values()],
        can_forget=_can_forget(facts),
        general=None if facts.general is None else general_line(facts.general),
        retention=[plain(line.strip()) for line in facts.retention],
        options=grid(["setting", "value"], [*options, *_key_settings(facts)], numbers_from=2),
        settings=fenced("yaml", as_yaml(portable(facts.settings))),
        limits=list(_limits(facts)),
        citation=_citation(facts.method.key, facts.method.paper),
    )
    return card


def _named(task: Mapping[str, Any]) -> str:
    """A task with the earlier ones whose rule it replaces."""
    return f"{task['name']} (supersedes {', '.join(task['supersedes'])})" if task["supersedes"] else task["name"]


def hub_id(base: str, *, embedded: bool) -> str | None:
    """A base model's id on the hub, with its owner; None if it is a path, or may be one."""
    if embedded:
        return EMBEDDED_HUB_ID
    return base if HUB_ID.fullmatch(base) and not base.endswith((".git", ".gguf")) else None


def front_matter(base: str | None, library: str, license: str | None, tags: Sequence[str]) -> str:
    """The front matter, which the hub reads, between its lines of hyphens.

    Args:
        base: The base model's id on the hub, or None.
        library: Name of the library that loads it.
        license: Its licence, or None if it was not given.
        tags: Tags beside those that every card has.
    """
    front: dict[str, Any] = {} if base is None else {"base_model": base}
    named = license or "unknown"
    front["library_name"] = library
    front |= {"license": named} if named in HUB_LICENSES.split() else {"license": "other", "license_name": named}
    front |= {"pipeline_tag": "text-generation", "tags": ["lifealign", "lifelong-alignment", *tags]}
    return f"---\n{as_yaml(front)}\n---"


def _front_matter(facts: CardFacts) -> str:
    tags = ["dpo"] if facts.settings["preference"]["num_train_epochs"] else []
    tags += ["lora"] if facts.is_adapter else []
    library = "peft" if facts.is_adapter else "lifealign"
    return front_matter(hub_id(facts.base, embedded=facts.embedded), library, facts.license, tags)


def _taught(facts: CardFacts) -> str:
    """What was taught and how it was scored, in one sentence."""
    if not facts.method.one_model:
        others = len(facts.tasks) - len(facts.learnt_here)
        beside = f"; each of the {others} tasks before has a model of its own" if others > 1 else ""
        beside = "; the task before has a model of its own" if others == 1 else beside
        return f"It was taught {listed(facts.learnt_here)} alone{beside}."
    number, joint = len(facts.tasks), len(facts.steps) == 1
    if number == 1:
        what, moment, which = "1 preference task", "afterwards", "that task"
    elif joint:
        what, moment, which = f"{number} preference tasks together", "afterwards", "all of them"
    else:
        what, moment, which = f"{number} preference tasks, one after the other", "after each of them", "all so far"
    latest = facts.settings["evaluation"].get("evaluate_last")
    if latest is not None and not joint:
        which = f"that task and of the latest {latest} before it" if latest else "that task"
    scored = f"; {moment} it was scored on held-out pairs of {which}" if facts.matrices else ""
    return f"It was taught {what}{scored}."


def _scores(matrix: ScoreMatrix, facts: CardFacts) -> dict[str, str]:
    """A score matrix as a table, with what was just learnt in bold, and its summary."""
    metric = metric_of(matrix)
    tasks, steps = matrix.latest(MOST_TASKS)
    rows = [["base model", *(metric.text(matrix.base.get(task)) for task in tasks)]]
    for step in steps:
        name, row, cells = facts.steps[step], matrix.rows[step], []
        for task in tasks:
            shown = metric.text(row.get(task)) if step >= matrix.learnt_at[task] else ""
            cells.append(f"**{shown}**" if step == matrix.learnt_at[task] and task in row else shown)
        rows.append([f"after {plain(name)}", *cells])
    numbers = matrix.summary()
    summary = f"Last {metric.text(numbers['last'])}"
    if _can_forget(facts):
        summary += f", backward transfer {metric.text(numbers['backward_transfer'], signed=True)}"
        summary += f", forgetting {metric.text(numbers['forgetting'])}"
    if text := part_text(matrix):
        summary += f"; {text}"
    if len(tasks) < len(matrix.tasks) or len(steps) < len(matrix.rows):
        shown = f"the latest {MOST_TASKS} of {len(matrix.tasks)} tasks and {len(matrix.rows)} steps"
        summary += f"; of {shown} in the table, every mean is over all"
    if examples := examples_text(matrix.examples):
        summary += f"; {plain(examples)}"
    return {
        "label": metric.label,
        "direction": metric.direction,
        "grid": grid(["", *tasks], rows, escaped=True),
        "summary": summary,
    }


def _can_forget(facts: CardFacts) -> bool:
    """Whether one model has learnt one thing after another; otherwise there is no backward transfer to report."""
    return facts.method.one_model and len(facts.steps) > 1


def _key_settings(facts: CardFacts) -> Iterator[tuple[str, str]]:
    """The most important settings of the training, in words; the method's own options are shown before them."""
    settings, method = facts.settings, facts.method
    if facts.is_adapter:
        lora = settings["lora"]
        targets = lora["lora_target_modules"]
        where = "the family's usual modules (adapter_config.json)" if targets == "auto" else ", ".join(targets)
        yield "LoRA", f"rank {lora['lora_r']}, alpha {lora['lora_alpha']}, on {where}"
    for stage in ("sft", "preference"):
        config = settings[stage]
        if not config["num_train_epochs"]:
            yield f"{stage} stage", "off"
            continue
        rate = config["learning_rate"] * method.learning_rate_factor
        pairs = config["per_device_train_batch_size"] * config["gradient_accumulation_steps"]
        epochs = f"{config['num_train_epochs']} epoch{'s' if config['num_train_epochs'] > 1 else ''}"
        yield f"{stage} stage", f"{epochs}, learning rate {rate:g}, {pairs} pairs per optimizer step"
    if settings["preference"]["num_train_epochs"]:
        reference = {
            "base": "the base model",
            "task_start": "the model as the task began",
            "stage_start": "the model after SFT",
        }
        preference = settings["preference"]
        yield "DPO", f"beta {preference['beta']}, reference: {reference[preference['reference']]}"
    yield "replay", _replay(settings["replay"], method)
    yield "longest pair", f"{settings['data']['max_length']} tokens of prompt and one answer"
    yield "seed", str(settings["seed"])


def _replay(replay: Mapping[str, Any] | None, method: Method) -> str:
    if method.memory_use == "none" or (replay is None and not method.replays):
        return "off"
    if replay is None:
        return "on, as the method has it by default"
    if not (replay["fraction"] and replay["capacity"]):
        return "off"
    return f"{replay['fraction']:g} of each task's pairs, at most {replay['capacity']}"


def _limits(facts: CardFacts) -> Iterator[str]:
    """The limits of what the numbers say."""
    yield (
        "Scores are of held-out pairs of the same tasks. Other tasks, safety and truthfulness beyond them were not "
        "measured."
    )
    yield f"One run with one seed ({facts.settings['seed']}): how far another would be from it is not known."
    if not facts.method.one_model and len(facts.steps) > 1:
        yield f"Only {listed(facts.learnt_here)} was learnt by this model; the other scores are of other versions."
    if unseen := [task["name"] for task in facts.tasks if not task["test_pairs"]]:
        names = _first(map(plain, unseen)) if len(unseen) > MOST_TASKS else listed(unseen)
        yield f"Without held-out pairs, and so without any score: {names}."
    wanted = [metric for metric in facts.settings["evaluation"]["metrics"] if metric != PERPLEXITY]
    if without := [METRICS[metric].short for metric in wanted if metric not in facts.matrices]:
        yield f"Asked for, but no task could be scored on it: {listed(without)}."
    for metric, matrix in facts.matrices.items():
        if matrix.holes:
            holes = _first(
                f"{plain(task)} after {plain(facts.steps[step])}"
                + (f" ({plain(why)})" if (why := matrix.reasons.get((step, task))) else "")
                for step, task in matrix.holes
            )
            yield f"Missing for {METRICS[metric].short}: {holes}. No mean is taken over what is missing."
        if matrix.base_reasons:
            lacking = _first(f"{plain(task)} ({plain(why)})" for task, why in matrix.base_reasons.items())
            yield f"Missing for {METRICS[metric].short} of the base model: {lacking}."
    for key, what in (("pairs", "held-out pairs"), ("prompts", "held-out prompts")):
        if (most := facts.settings["evaluation"][key]) is not None and facts.matrices:
            yield f"At most {most} {what} of each task were scored."
    if facts.general is None and facts.general_hole is not None:
        yield (
            f"General ability could not be measured ({plain(facts.general_hole)}), so what these tasks cost elsewhere "
            "is not known."
        )
    elif facts.general is None:
        yield "General ability was not measured, so what these tasks cost elsewhere is not known."
    if facts.license is None:
        yield "Nobody has said under which licence this may be used; that of the base model applies to it as well."


def _first(texts: Iterable[str]) -> str:
    """The first texts, and how many there are beyond them."""
    found = list(texts)
    more = f", and {len(found) - MOST_TASKS} more" if len(found) > MOST_TASKS else ""
    return ", ".join(found[:MOST_TASKS]) + more


def _citation(key: str, paper: Paper | None) -> str:
    """BibTeX of the method's own paper, from its class; empty if that is LifeAlign's paper, or there is none."""
    if paper is None or key == "lifealign":
        return ""
    fields = {"title": paper.title, "howpublished": paper.venue, "url": paper.url}
    year = ""
    if dated := re.fullmatch(r"(.+) (\d{4})", paper.venue):
        fields["howpublished"], year = dated.groups()
        fields["year"] = year
    if found := re.search(r"arxiv\.org/abs/(\S+)", paper.url):
        fields |= {"eprint": found[1], "archiveprefix": "arXiv"}
    body = "\n".join(f"  {name:<13} = {{{value}}}," for name, value in fields.items())
    return f"@misc{{{key}{year},\n{body}\n}}"


def as_yaml(value: Any) -> str:
    """A value as YAML, in the order it has."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not HTML: whatever comes from data goes through plain, fenced or YAML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template("model_card.md.j2")
