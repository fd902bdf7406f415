"""Preference data: reading any accepted shape, cleaning it, and looking it over."""

from lifealign.data.checks import CleanPairs as CleanPairs
from lifealign.data.checks import read_clean as read_clean
from lifealign.data.checks import test_overlap as test_overlap
from lifealign.data.files import read_rows as read_rows
from lifealign.data.formats import parse_row as parse_row
from lifealign.data.formats import read_pairs as read_pairs
from lifealign.data.report import DataReport as DataReport
from lifealign.data.report import inspect as inspect
from lifealign.data.task import Message as Message
from lifealign.data.task import Pair as Pair
from lifealign.data.task import Task as Task
