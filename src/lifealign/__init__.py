"""Keep a language model aligned for life: teach it one more preference task, keep the others, and show it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifealign.data.answer_check import AnswerCheck as AnswerCheck
    from lifealign.data.pair import Message as Message
    from lifealign.data.pair import Pair as Pair
    from lifealign.data.task import Task as Task
    from lifealign.errors import ConfigError as ConfigError
    from lifealign.errors import DataError as DataError
    from lifealign.errors import LifeAlignError as LifeAlignError
    from lifealign.errors import LifeError as LifeError
    from lifealign.errors import ModelError as ModelError
    from lifealign.errors import TrainingError as TrainingError
    from lifealign.life.foreign import ConsolidatedAdapter as ConsolidatedAdapter
    from lifealign.life.foreign import consolidate_adapters as consolidate_adapters
    from lifealign.life.life import Life as Life
    from lifealign.life.settings import LifeConfig as LifeConfig
    from lifealign.life.trainer_callback import ConsolidateCallback as ConsolidateCallback
    from lifealign.memory.denoise import denoise_update as denoise_update
    from lifealign.memory.long_term import LongTermMemory as LongTermMemory
    from lifealign.memory.long_term import consolidate as consolidate
    from lifealign.memory.project import refine_update as refine_update
    from lifealign.training.objectives import dpo_loss as dpo_loss
    from lifealign.training.objectives import focal_preference_loss as focal_preference_loss
    from lifealign.training.objectives import preference_margin as preference_margin

__version__ = "0.1.0"

_PLACES = {
    "AnswerCheck": "data.answer_check",
    "ConfigError": "errors",
    "ConsolidateCallback": "life.trainer_callback",
    "ConsolidatedAdapter": "life.foreign",
    "DataError": "errors",
    "Life": "life.life",
    "LifeAlignError": "errors",
    "LifeConfig": "life.settings",
    "LifeError": "errors",
    "LongTermMemory": "memory.long_term",
    "Message": "data.pair",
    "ModelError": "errors",
    "Pair": "data.pair",
    "Task": "data.task",
    "TrainingError": "errors",
    "consolidate": "memory.long_term",
    "consolidate_adapters": "life.foreign",
    "denoise_update": "memory.denoise",
    "dpo_loss": "training.objectives",
    "focal_preference_loss": "training.objectives",
    "preference_margin": "training.objectives",
    "refine_update": "memory.project",
}
"""Module of each public name; imported when the name is first used, so that reading data does not wait for torch."""

__all__ = [  # a literal, for readers and type checkers; the names of _PLACES
    "AnswerCheck",
    "ConfigError",
    "ConsolidateCallback",
    "ConsolidatedAdapter",
    "DataError",
    "Life",
    "LifeAlignError",
    "LifeConfig",
    "LifeError",
    "LongTermMemory",
    "Message",
    "ModelError",
    "Pair",
    "Task",
    "TrainingError",
    "consolidate",
    "consolidate_adapters",
    "denoise_update",
    "dpo_loss",
    "focal_preference_loss",
    "preference_margin",
    "refine_update",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
