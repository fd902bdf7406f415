"""LifeAlign: focalized preference optimization, short-to-long memory consolidation, and replay."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lifealign.memory.long_term import HISTORY_LIMIT, Consolidation, LongTermMemory, consolidate
from lifealign.memory.update import Adapter
from lifealign.methods.base import Method, Paper, Segment, Step
from lifealign.training.objectives import BatchOutcome, focal_weight


class LifeAlign(Method):
    """The method of the paper, with corrected equations.

    Attributes:
        focal_exponent: g of the focal weight, at least 0; 0 is plain DPO.
        energy_kept: θ, share of an update's energy that denoising keeps, in (0, 1]; 1 denoises nothing.
        overlap_kept: λ, share of the overlap with earlier tasks that is kept, in [0, 1]; 1 projects nothing.
        consolidate_at: ``task``: one short-term update per task, SFT and preference stage together (paper's figure).
            ``stage``: one per stage, both remembered (the released code). ``preference``: only the preference stage's
            update is consolidated and remembered; that of SFT is kept as it is.
        history_limit: Number of updates that later ones are projected against exactly, at least 1. Beyond it a sketch
            of as many rows stands for all of them, so that neither time nor memory grows with the number of tasks.
    """

    key: ClassVar[str] = "lifealign"
    title: ClassVar[str] = "LifeAlign"
    paper: ClassVar[Paper | None] = Paper("LifeAlign", "AAAI 2026", "https://arxiv.org/abs/2509.17183")
    replays: ClassVar[bool] = True

    focal_exponent: float = Field(2.0, ge=0)  # paper, FPO; literal in the released code
    energy_kept: float = Field(0.9, gt=0, le=1)  # paper, main setting (sweep of theta)
    overlap_kept: float = Field(0.5, ge=0, le=1)  # paper, main setting (sweep of lambda); the released default is 0.1
    consolidate_at: Literal["task", "stage", "preference"] = "task"  # paper's figure; design decision 5
    history_limit: int = Field(HISTORY_LIMIT, ge=1)  # ours; the paper has six tasks and keeps all updates

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Which stages share a short-term update, according to ``consolidate_at``."""
        if self.consolidate_at == "task":
            return super().segments
        sft_is_consolidated = self.consolidate_at == "stage"
        return (Segment("sft", ("sft",), sft_is_consolidated), Segment("preference", ("preference",)))

    @property
    def keeps_updates(self) -> bool:
        """Whether later updates are projected against them."""
        return self.overlap_kept < 1

    @property
    def updates_kept(self) -> int:
        """``history_limit``."""
        return self.history_limit

    def example_weights(self, outcome: BatchOutcome) -> Float[Tensor, " pairs"] | None:
        """The focal weight of each pair in the preference stage; SFT is not weighted."""
        return None if outcome.margins is None else focal_weight(outcome.margins, self.focal_exponent)

    def consolidate(self, update: Adapter, memory: LongTermMemory, step: Step) -> Consolidation:
        """Denoises the update and refines it against the history in memory."""
        return consolidate(update, memory, energy_kept=self.energy_kept, overlap_kept=self.overlap_kept)
