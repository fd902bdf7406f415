"""The methods of the comparison, one file and one class each."""

from lifealign.methods.agem import AGEM as AGEM
from lifealign.methods.base import Method as Method
from lifealign.methods.cppo import CPPO as CPPO
from lifealign.methods.er import ER as ER
from lifealign.methods.ewc import EWC as EWC
from lifealign.methods.gem import GEM as GEM
from lifealign.methods.l2p import L2P as L2P
from lifealign.methods.lifealign import LifeAlign as LifeAlign
from lifealign.methods.mtl import MTL as MTL
from lifealign.methods.olora import OLoRA as OLoRA
from lifealign.methods.seqft import SeqFT as SeqFT
from lifealign.methods.stl import STL as STL

METHODS: dict[str, type[Method]] = {
    method.key: method for method in (LifeAlign, SeqFT, STL, MTL, ER, EWC, GEM, AGEM, OLoRA, L2P, CPPO)
}
"""Every method by the word that YAML, command line and result files use for it."""
