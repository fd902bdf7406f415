"""The embedded model learns two house rules, one after the other, and what it learnt is a plain PEFT adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.embedded import FAST_DTYPE, needs_embedded
from tests.writers import write_general_text

from lifealign.data.suites.support_desk import load_suite
from lifealign.life.life import Life
from lifealign.life.settings import LifeConfig
from lifealign.model.base_model import load_base
from lifealign.model.embedded import EMBEDDED_HUB_ID
from lifealign.model.settings import EMBEDDED, ModelConfig
from lifealign.settings.section import build_config

pytestmark = [pytest.mark.slow, needs_embedded]

STAGE = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
SETTINGS: dict[str, Any] = {
    "sft": STAGE | {"learning_rate": 4e-3, "num_train_epochs": 2},
    "preference": STAGE | {"learning_rate": 2e-4, "num_train_epochs": 1},
    "data": {"max_length": 256},
    "evaluation": {"per_device_eval_batch_size": 8, "max_new_tokens": 40},
}


def test_the_embedded_model_learns_two_rules_and_the_adapter_loads_with_plain_peft(tmp_path: Path) -> None:
    """The demo's rates on 16 pairs a rule, 4 held out: 16 steps of SFT, 8 of the preference stage, twice."""
    model = {"model_name_or_path": EMBEDDED, "dtype": FAST_DTYPE}
    settings = SETTINGS | {
        "model": model,
        "evaluation": SETTINGS["evaluation"] | {"general_text": write_general_text(tmp_path)},
    }
    life = Life.create(tmp_path / "life", build_config(LifeConfig, settings))
    assert life.directory.manifest.base.model_name_or_path == EMBEDDED_HUB_ID
    taught = load_suite(16, test_pairs=4)[:2]
    for task in taught:
        life.learn(task)

    adherence = life.scores["adherence"]
    assert max(adherence.base.values()) <= 0.25, adherence.base  # what the model does of itself
    for step in range(2):
        assert (adherence[step, step] or 0) >= 0.75, adherence.rows
    for task, step in zip(taught, life.steps, strict=True):  # four held-out pairs are too few: their margin is near 0
        learnt = {one.step: one.mean for one in life.recall_examples(task.train)}
        assert learnt[step.name] > 0, learnt

    model_in_life, tokenizer = Life.open(life.directory.path).load()
    ids = torch.tensor([tokenizer.encode("My parcel has not come. Where is it?")])
    with torch.no_grad():
        expected = model_in_life.eval()(input_ids=ids).logits
        base = load_base(ModelConfig(model_name_or_path=EMBEDDED, dtype=FAST_DTYPE))
        folder = life.directory.path / "versions" / "02-greet"
        assert not torch.equal(base.model(input_ids=ids).logits, expected)
        plain = PeftModel.from_pretrained(base.model, folder).eval()
        assert torch.equal(plain(input_ids=ids).logits, expected)
