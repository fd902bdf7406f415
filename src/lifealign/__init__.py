"""Keep a language model aligned for life: teach one more preference task, keep the others, and show it."""

from lifealign.config import LifeConfig as LifeConfig
from lifealign.data.task import Message as Message
from lifealign.data.task import Pair as Pair
from lifealign.data.task import Task as Task
from lifealign.errors import ConfigError as ConfigError
from lifealign.errors import DataError as DataError
from lifealign.errors import LifeAlignError as LifeAlignError
from lifealign.errors import LifeError as LifeError
from lifealign.errors import ModelError as ModelError
from lifealign.errors import TrainingError as TrainingError
from lifealign.evaluation.adherence import AnswerCheck as AnswerCheck
from lifealign.life import Life as Life
from lifealign.memory.denoise import denoise_update as denoise_update
from lifealign.memory.long_term import LongTermMemory as LongTermMemory
from lifealign.memory.long_term import consolidate as consolidate
from lifealign.memory.project import refine_update as refine_update
from lifealign.training.objectives import dpo_loss as dpo_loss
from lifealign.training.objectives import focal_preference_loss as focal_preference_loss
from lifealign.training.objectives import preference_margin as preference_margin

__version__ = "0.1.0"
