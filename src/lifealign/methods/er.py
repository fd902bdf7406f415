"""Experience replay: pairs of earlier tasks are mixed into each new task."""

from __future__ import annotations

from typing import ClassVar

from lifealign.methods.base import Method, Paper


class ER(Method):
    """Experience replay: sequential fine-tuning on the new task and a stored share of each earlier one.

    The ``replay`` section of the settings says how much is stored; with ``capacity`` 0 this is SeqFT.
    """

    key: ClassVar[str] = "er"
    title: ClassVar[str] = "ER"
    paper: ClassVar[Paper | None] = Paper(
        "On Tiny Episodic Memories in Continual Learning", "arXiv 2019", "https://arxiv.org/abs/1902.10486"
    )
    replays: ClassVar[bool] = True
