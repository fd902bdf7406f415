"""The command that consolidates what another trainer has done to an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifealign.cli.options import say_lines


def consolidate(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="Folder of the adapter that the training began from.")
    ],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Folder of the adapter that it ended in.")],
    memory: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the memory; it grows by one update a call.")],
    out: Annotated[Path, typer.Option(metavar="OUT", help="Folder for the consolidated adapter; new or empty.")],
    energy_kept: Annotated[
        float, typer.Option(help="Share of the update's energy that denoising keeps; 1 denoises nothing.")
    ] = 0.9,
    overlap_kept: Annotated[
        float, typer.Option(help="Share of the overlap with earlier updates that is kept; 1 projects nothing.")
    ] = 0.5,
    name: Annotated[str | None, typer.Option(help="Name of the update in the memory; by default that of OUT.")] = None,
) -> None:
    """Consolidate a LoRA adapter that another trainer made (TRL, LLaMA-Factory, axolotl, ms-swift, unsloth, ...).

    What the training has changed is denoised, and what of it overlaps earlier updates is reduced. OUT is BEFORE plus
    the rest; the next training begins from OUT. The memory takes an update whole or not at all, and never twice.
    """
    from lifealign.life.foreign import consolidate_adapters

    made = consolidate_adapters(
        before, after, memory, out, energy_kept=energy_kept, overlap_kept=overlap_kept, name=name
    )
    if made.not_read:
        first, more = ", ".join(made.not_read[:6]), len(made.not_read) - 6
        say_lines(f"{after}: not read, because adapters of their own: {first}{f' and {more} more' if more > 0 else ''}")
    if made.known:
        say_lines(f"{memory}: has this update already, as {made.entry}; nothing was taken twice")
    else:
        say_lines(f"{memory}: {made.entry} taken, {made.updates} {'update' if made.updates == 1 else 'updates'} in all")
    figures = made.figures
    say_lines(
        f"  rank kept {figures['rank_kept']:.1f}  energy kept {figures['energy_kept']:.1%}  "
        f"overlap with earlier updates {figures['overlap_energy']:.1%}  "
        f"norm {figures['norm_before']:.3g} to {figures['norm_after']:.3g}  (means of {made.factors} factors)"
    )
    if error := figures.get("sketch_error"):
        say_lines(f"  a sketch stands for the earlier updates; it changes the rest by at most {error:.1%}")
    say_lines("next: train from that adapter, and give it as BEFORE", "", f"adapter: {out}")
