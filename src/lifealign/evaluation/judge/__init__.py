"""The LLM judge: strict marks and preferences from a model behind an OpenAI-compatible server."""

from lifealign.errors import JudgeError as JudgeError
from lifealign.evaluation.judge.judge import Judge as Judge
from lifealign.evaluation.judge.judge import TaskJudge as TaskJudge
from lifealign.evaluation.judge.pairwise import AnswerPair as AnswerPair
from lifealign.evaluation.judge.pairwise import Preferences as Preferences
from lifealign.evaluation.judge.pairwise import WinRate as WinRate
from lifealign.evaluation.judge.pairwise import win_rate as win_rate
from lifealign.evaluation.judge.pointwise import Item as Item
from lifealign.evaluation.judge.pointwise import Marks as Marks
from lifealign.evaluation.judge.pointwise import judge_score as judge_score
from lifealign.evaluation.judge.rubrics import Rubric as Rubric
from lifealign.evaluation.judge.rubrics import load_rubric as load_rubric
from lifealign.evaluation.judge.rubrics import rubric_for as rubric_for
from lifealign.evaluation.judge.session import Tally as Tally
from lifealign.evaluation.judge.settings import JudgeConfig as JudgeConfig
