"""What has to hold before an adapter that another trainer made is consolidated: options, folders, and the chain."""

from __future__ import annotations

import re
from pathlib import Path

from lifealign.data.task import NAME_RULE, TASK_NAME
from lifealign.errors import ConfigError, LifeError, ModelError
from lifealign.life.disk.foreign_memory import MANIFEST, Entry, ForeignMemory, opened_memory, require_memory
from lifealign.model.peft_folder import PeftAdapter, read_peft_folder, require_kind
from lifealign.storage.home import with_home

NUMBER = re.compile(r"^[0-9]{2,9}-(?=.)")


def require_next(
    before: str | Path,
    memory: str | Path,
    out: str | Path,
    *,
    energy_kept: float = 0.9,
    overlap_kept: float = 0.5,
    name: str | None = None,
) -> None:
    """Refuses, before anything is trained, what ``consolidate_adapters`` would refuse afterwards.

    Args:
        before: Folder of the adapter that the training will begin from.
        memory: Folder of the memory.
        out: Folder of the consolidated adapter.
        energy_kept: As there.
        overlap_kept: As there.
        name: As there.

    Raises:
        ConfigError: As there.
        ModelError: If the adapter is missing, or no plain LoRA.
        LifeError: As there.
    """
    place, target = with_home(memory), with_home(out)
    require_shares(energy_kept, overlap_kept)
    start = read_before(before)
    label_of(name, target)
    require_apart(place, target)
    require_free(target)
    require_memory(place)
    if (place / MANIFEST).exists():
        with opened_memory(place) as kept:
            require_chain(kept, start)
            if kept.kind is not None:
                require_kind(start, kept.kind, str(place))


def require_chain(kept: ForeignMemory, start: PeftAdapter) -> None:
    """Refuses an adapter that is not the one that came of the last update.

    Raises:
        LifeError: If it is another one; the message says which, if the memory knows it, and where the right one is.
    """
    if not kept.entries:
        return
    last = kept.entries[-1]
    expected = last.consolidated.get(start.dtype, "")
    if start.fingerprint == expected:
        return
    found = f"an adapter of fingerprint {start.fingerprint}"
    if start.fingerprint == last.after:
        found = f"the adapter as it was before {last.name} was consolidated"
    for entry in kept.entries[:-1]:
        if start.fingerprint == entry.consolidated.get(start.dtype):
            found = f"the adapter that {entry.name} came to"
    raise LifeError(
        f"{start.folder}: found {found}, expected the one that {last.name}, the last update of {kept.path}, came to: "
        f"fingerprint {expected}, written to {last.folder}. Train from that one; or give a new memory, which knows "
        "nothing of the updates in this one"
    )


def read_before(before: str | Path) -> PeftAdapter:
    """The adapter that a training began from.

    Raises:
        ConfigError: If it is ``none``.
        ModelError: If it is missing, or no plain LoRA.
        LifeError: If a file cannot be read or is damaged.
    """
    if str(before) == "none" and not Path("none").exists():
        raise ConfigError(
            "before: found none, expected the folder of the adapter that the training began from: a new adapter has a "
            "lora_A that was drawn at random, and without it nobody knows what the training has changed. Save it "
            "before the training, with model.save_pretrained(FOLDER) or by ConsolidateCallback"
        )
    return read_peft_folder(with_home(before))


def require_shares(energy_kept: float, overlap_kept: float) -> None:
    """Refuses shares out of range.

    Raises:
        ConfigError: If one is.
    """
    if not 0 < energy_kept <= 1:
        raise ConfigError(f"energy_kept: found {energy_kept}, expected more than 0 and at most 1")
    if not 0 <= overlap_kept <= 1:
        raise ConfigError(f"overlap_kept: found {overlap_kept}, expected a number from 0 to 1")


def label_of(name: str | None, target: Path) -> str:
    """The name of an update in the memory, which numbers them itself.

    Args:
        name: The name that was asked for, or None.
        target: Folder of the consolidated adapter, which otherwise gives its name.

    Raises:
        ConfigError: If it cannot be a name.

    Example:
        >>> label_of(None, Path("adapters/02-tone")), label_of("refunds", Path("out"))
        ('tone', 'refunds')
    """
    label = NUMBER.sub("", target.resolve().name, count=1) if name is None else name
    if not TASK_NAME.fullmatch(label):
        raise ConfigError(f"name: found {label!r}, expected {NAME_RULE}; add --name NAME")
    return label


def require_apart(place: Path, target: Path) -> None:
    """Refuses folders of which one is in the other, and beside a new memory also a target that is in use.

    Raises:
        LifeError: If they are, or the folder of the memory has something else in it.
    """
    one, other = place.resolve(), target.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise LifeError(f"{target}: found a folder of the memory {place}, expected one beside it")
    require_memory(place)
    if not (place / MANIFEST).exists():  # otherwise it may be what an earlier call has written
        require_free(target)


def is_there(target: Path, entry: Entry) -> bool:
    """Whether a folder has the adapter that came of an update."""
    try:
        return read_peft_folder(target).fingerprint == entry.consolidated["float32"]
    except (ModelError, LifeError):
        return False


def require_free(target: Path) -> None:
    """Refuses a folder that has something in it, or cannot be replaced.

    Raises:
        LifeError: If it has.
    """
    if target.resolve() == Path.cwd():
        raise LifeError(f"{target}: found the folder that you are in, expected another one, which will be put in place")
    try:
        if any(target.iterdir()):
            raise LifeError(f"{target}: found a directory that is not empty, expected an empty or new one")
    except FileNotFoundError:
        return
    except OSError as error:
        raise LifeError(f"{target}: could not be read: {error.strerror}") from error
