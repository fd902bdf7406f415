"""The names of all files and folders of a life; see ``docs/life_format.md`` for what is in them."""

from __future__ import annotations

FIRST = "00-base"
"""Name of the version before any task: the untrained adapter."""

MANIFEST, CONFIG = "life.json", "config.yaml"
OWNED = ("versions", "memory", "replay", "tasks")
"""Folders in which every file that the manifest does not name is deleted."""
LOGS, CACHE = "logs", "cache"
"""Folder that trackers write to, with one folder per step; folder of what is computed again if it is missing."""

REFERENCE_CACHE, OLDER_REFERENCE_CACHE = f"{CACHE}/reference.jsonl", f"{CACHE}/reference.safetensors"
ANSWER_CACHE, OLDER_ANSWER_CACHE = f"{CACHE}/answers.jsonl", f"{CACHE}/answers.json"
"""Each also in the form of earlier versions, which is read where it is there."""
JUDGE_CACHE = f"{CACHE}/judge.sqlite"
MEMORY_SKETCH = f"{CACHE}/memory.safetensors"

RETENTION = "retention"
"""Folder of what the gate has decided beyond the versions that were kept."""
LEARNING = "learning"
"""Folder of the checkpoint of a step that is being learnt."""
REBUILDING = "rebuilding"
"""Folder of the life that is to take this one's place, while ``forget`` learns it."""
DECISIONS = f"{RETENTION}/decisions.json"

SCORES, RESULT, PAGE = "scores.json", "result.json", "report.html"
"""Views for people and scripts: rewritten from what the versions hold, never read."""

ADAPTER_WEIGHTS, POOL_WEIGHTS = "adapter_model.safetensors", "prompt_pool.safetensors"


def version_folder(version: str) -> str:
    """Folder that PEFT loads an adapter from."""
    return f"versions/{version}"


def adapter_config(version: str) -> str:
    """PEFT's description of a version's adapter."""
    return f"versions/{version}/adapter_config.json"


def adapter_weights(version: str) -> str:
    """The adapter of a version."""
    return f"versions/{version}/{ADAPTER_WEIGHTS}"


def pool_shape(version: str) -> str:
    """Shape of a version's prompt pool, if it has one in place of an adapter."""
    return f"versions/{version}/prompt_pool.json"


def pool_weights(version: str) -> str:
    """The prompt pool of a version."""
    return f"versions/{version}/{POOL_WEIGHTS}"


def model_card(version: str) -> str:
    """The model card of a version."""
    return f"versions/{version}/README.md"


def refined_updates(step: str) -> str:
    """The refined updates that a step has added to the long-term memory."""
    return f"memory/{step}.safetensors"


def keys(step: str) -> str:
    """By which the prompts of a step's tasks are recalled."""
    return f"memory/{step}.keys.safetensors"


def method_tensors(step: str) -> str:
    """Tensors of the method's state after a step."""
    return f"memory/{step}.method.safetensors"


def method_values(step: str) -> str:
    """The method, and the values of its state after a step."""
    return f"tasks/{step}/method.json"


def remembered_pairs(step: str) -> str:
    """Pairs of a step's tasks that are remembered for replay."""
    return f"replay/{step}.jsonl"


def adopted(step: str) -> str:
    """The adapter from another trainer that a step has made part of the life."""
    return f"tasks/{step}/adopted.json"


def training_log(step: str) -> str:
    """What a step was trained on, and the log of its optimizer steps."""
    return f"tasks/{step}/training.json"


def consolidation_figures(step: str) -> str:
    """Figures of a step's consolidation."""
    return f"tasks/{step}/consolidation.json"


def time_and_memory(step: str) -> str:
    """The time and memory that a step took."""
    return f"tasks/{step}/time.json"


def held_out_pairs(step: str, task: str) -> str:
    """Held-out pairs of a task that was learnt in a step."""
    return f"tasks/{step}/{task}.test.jsonl"


def own_scores(step: str) -> str:
    """The scores that a step itself has measured."""
    return f"tasks/{step}/scores.json"


def answers(step: str) -> str:
    """Generated answers of the model after a step."""
    return f"tasks/{step}/answers.jsonl"


def base_answers(step: str) -> str:
    """Generated answers of the base model to the prompts of a step's tasks."""
    return f"tasks/{step}/base_answers.jsonl"


def later_scores(step: str, metric: str) -> str:
    """A metric that was measured later."""
    return f"tasks/{step}/evaluation/{metric}.json"


def preferences(step: str, other: str) -> str:
    """A judge's preferences between the answers of a step and those of another version."""
    return f"tasks/{step}/evaluation/against-{other}.json"


def taught(step: str, task: str) -> str:
    """Everything that a task was taught with, as it was given."""
    return f"tasks/{step}/{task}.taught.jsonl.gz"


def told_apart(step: str) -> str:
    """How well prompts of a step's tasks can be told from those of the tasks before it."""
    return f"tasks/{step}/recall.json"


def gate_pairs(step: str, task: str) -> str:
    """Pairs of a task by which later steps are accepted or refused."""
    return f"tasks/{step}/{task}.gate.jsonl"


def select_pairs(step: str, task: str) -> str:
    """Pairs of a task by which the scale of a later step's update is chosen."""
    return f"tasks/{step}/{task}.select.jsonl"


def retention(step: str) -> str:
    """What a step has cost the tasks before it, and how its own tasks held when they were learnt."""
    return f"tasks/{step}/retention.json"


def gate_answers(step: str) -> str:
    """Greedy answers of a step's model to the gate prompts of all tasks with a check."""
    return f"tasks/{step}/gate_answers.jsonl"


def refusal(step: str) -> str:
    """Why a step was refused, and the prompts that flipped."""
    return f"{RETENTION}/refused-{step}.json"
