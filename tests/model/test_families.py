"""Families of models: what the proof says of each is what the table says, and is true when looked at without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.blocks import ROOT
from tests.model import families

EVERY_TIME = (
    "bart",  # an encoder-decoder
    "bert",  # sees what comes after
    "bloom",  # positions from the mask
    "cohere2",  # logits scaled, windows in some layers
    "gemma2",  # logits capped
    "gpt2",  # weights transposed, learned positions
    "granite",  # logits divided
    "jamba",  # a state in some layers
    "llama",  # nothing special
    "llama4_text",  # chunks
    "mistral",  # windows in all layers
    "phi3",  # queries, keys and values in one matrix
    "qwen3_5",  # reads images too
    "rwkv",  # a state and nothing else
)
every_family = [
    pytest.param(family, marks=() if family in EVERY_TIME else pytest.mark.families) for family in families.FAMILIES
]


@pytest.mark.parametrize("family", every_family)
def test_a_family_does_what_the_table_says(family: str, tmp_path: Path) -> None:
    row, runtime = families.try_family(family, tmp_path / "base")
    assert families.line_of(row) == families.written_rows().get(family)
    if runtime is None:
        return
    pairs = families.long_pairs()
    by_hand = families.logps_by_hand(runtime, pairs)
    ours = runtime.policy(runtime.batch(pairs, ("chosen", "rejected")))
    torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-3)
    expected, found = families.gradients(runtime, by_hand), families.gradients(runtime, ours)
    assert expected and expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6, name
    alone, together = families.answers_alone_and_together(runtime)
    assert alone == together
    whole, leaving = families.answers_whole_and_leaving(runtime)
    assert whole == leaving
    here, reloaded = families.reloaded_by_peft(runtime, tmp_path / "base", tmp_path / "adapter")
    torch.testing.assert_close(reloaded, here, rtol=1e-4, atol=1e-4)


def test_families_that_are_held_together_compute_what_a_whole_base_does() -> None:
    """All of them: ``python -m tests.model.held_together``. In a process of its own, which has a process group."""
    names = ("llama", "gemma2", "qwen3_moe", "gpt2", "openai-gpt")
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.held_together", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split(": ") for line in done.stdout.splitlines())
    assert found == dict.fromkeys(names, "equal") | {"openai-gpt": "refused"}


def test_the_table_has_every_family_once() -> None:
    assert list(families.written_rows()) == families.FAMILIES
