"""Commands that say what state a life is in, and mend it: status, verify, repair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifealign.cli.options import LifePath, console, say_lines, show_life
from lifealign.errors import LifeError

if TYPE_CHECKING:
    from lifealign.life.life import Life


def status(life: LifePath) -> None:
    """What a life has learnt, and how well it still knows it."""
    from lifealign.life.reading import look_at
    from lifealign.report.printing import print_again, printed

    print_again(console, look_at(life, lambda opened: printed(console, lambda: _show_status(life, opened))))


def _show_status(life: Path, opened: Life) -> None:
    from lifealign.life.disk.gate_files import retention_of
    from lifealign.life.disk.progress_files import interrupted

    files = opened.directory.verify(opened.versions)
    base = opened.directory.manifest.base
    learnt = f"{len(opened.steps)} {'version' if len(opened.steps) == 1 else 'versions'} learnt"
    say_lines(
        f"{life}: {learnt} on {base.model_name_or_path}, method {opened.shown.method.title}; "
        f"{files} files, all as committed"
    )
    for version in opened.steps:
        tasks = []
        for task in version.tasks:
            instead = f"; supersedes {', '.join(task.supersedes)}" if task.supersedes else ""
            tasks.append(f"{task.name} ({task.train_pairs} pairs, {task.test_pairs} held out{instead})")
        say_lines(f"  {version.name}: {', '.join(tasks)}")
        if version.name == opened.directory.adopted:
            say_lines("    came with an adapter from another trainer")
        if evidence := retention_of(opened.directory, version):
            say_lines(*(f"    {line}" for line in evidence.summary))
    if (begun := interrupted(opened.directory)) is not None:
        step, done = begun
        say_lines(f"  {step}: interrupted after {done} optimizer steps; the same `lifealign learn` goes on from there")
    show_life(opened)


def verify(life: LifePath) -> None:
    """Compare every file of a life with what was committed; name each that is wrong, and the last whole version."""
    from lifealign.life.life import Life
    from lifealign.life.repair import damage_of

    opened = Life.open(life)
    damage = damage_of(opened.directory)
    for version, faults in damage.faults.items():
        say_lines(f"{version}:", *(f"  {text}" for text in faults.values()))
    if not damage.wrong:
        last = opened.versions[-1].name
        say_lines(f"{life}: {damage.files} files of {len(opened.versions)} versions, all as committed, up to {last}")
        return
    number = "1 file is" if len(damage.wrong) == 1 else f"{len(damage.wrong)} files are"
    raise LifeError(f"{life}: {number} wrong, of {damage.files}; {_way_out(life, damage.whole)}")


def repair(
    life: LifePath,
    copy: Annotated[
        Path | None, typer.Option("--from", metavar="COPY", help="A copy of the life: take its files where they fit.")
    ] = None,
) -> None:
    """Bring a damaged life back: with the files of a copy, or by going back to the last version that is whole."""
    from lifealign.life.life import Life
    from lifealign.life.repair import damage_of, restore

    opened = Life.open(life)
    if copy is not None:
        restored = restore(opened.directory, copy)
        say_lines(*(f"  {name}: taken from {copy}" for name in restored))
    damage = damage_of(opened.directory)
    if not damage.wrong:
        say_lines(f"{life}: {damage.files} files, all as committed{'' if copy else '; nothing to do'}")
        return
    if copy is not None:
        left = ", ".join(damage.wrong[:6]) + (f" and {len(damage.wrong) - 6} more" if len(damage.wrong) > 6 else "")
        raise LifeError(f"{life}: found nothing that fits in {copy} for {left}; {_way_out(life, damage.whole)}")
    if damage.whole is None:
        raise LifeError(f"{life}: {_way_out(life, None)}")
    undone = [version.name for version in opened.versions[opened.directory.index(damage.whole) + 1 :]]
    opened.rollback(damage.whole)
    say_lines(f"{life}: back at {damage.whole}, which is whole; forgot {', '.join(undone)}")


def _way_out(life: Path, whole: str | None) -> str:
    copy = f"`lifealign repair {life} --from COPY` takes files from a copy"
    if whole is None:
        return f"no version is whole; {copy}"
    return f"the last version that is whole is {whole}; {copy}, `lifealign repair {life}` goes back to {whole}"
