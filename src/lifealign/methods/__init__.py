"""The methods of the comparison, one file and one class each."""

from lifealign.methods.base import Method as Method
from lifealign.methods.er import ER as ER
from lifealign.methods.lifealign import LifeAlign as LifeAlign
from lifealign.methods.seqft import SeqFT as SeqFT

METHODS: dict[str, type[Method]] = {method.key: method for method in (LifeAlign, SeqFT, ER)}
"""Every method by the word that YAML, command line and result files use for it."""
