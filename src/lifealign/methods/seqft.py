"""Sequential fine-tuning: one task after another, with nothing done against forgetting."""

from __future__ import annotations

from typing import ClassVar

from lifealign.methods.base import Method


class SeqFT(Method):
    """Sequential fine-tuning, the lower bound of every comparison: SFT, then DPO, task after task."""

    key: ClassVar[str] = "seqft"
    title: ClassVar[str] = "SeqFT"
