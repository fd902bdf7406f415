"""Preference data: reading any accepted shape, cleaning it, and inspecting it."""

from lifealign.data.clean import CleanPairs as CleanPairs
from lifealign.data.clean import read_clean as read_clean
from lifealign.data.clean import test_overlap as test_overlap
from lifealign.data.files import read_rows as read_rows
from lifealign.data.formats import parse_row as parse_row
from lifealign.data.formats import read_pairs as read_pairs
from lifealign.data.inspection import DataReport as DataReport
from lifealign.data.inspection import inspect as inspect
from lifealign.data.pair import Message as Message
from lifealign.data.pair import Pair as Pair
from lifealign.data.task import Task as Task
