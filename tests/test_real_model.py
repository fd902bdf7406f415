"""The embedded model learns two house rules, one after the other, and what it learnt is a plain PEFT adapter."""

import importlib.util
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from lifealign.config import LifeConfig, ModelConfig
from lifealign.config_file import build_config
from lifealign.demo.support_desk import load_suite
from lifealign.life import Life
from lifealign.model import EMBEDDED, EMBEDDED_HUB_ID, EMBEDDED_INSTALL, EMBEDDED_PACKAGE, load_base

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec(EMBEDDED_PACKAGE) is None,
        reason=f"the embedded model is not installed; {EMBEDDED_INSTALL}",
    ),
]

STAGE = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
SETTINGS = {
    "model": EMBEDDED,
    "sft": STAGE | {"learning_rate": 2e-3, "num_train_epochs": 1},
    "preference": STAGE | {"learning_rate": 1e-3, "num_train_epochs": 3},
    "data": {"max_length": 256},
    "evaluation": {"generate": False, "per_device_eval_batch_size": 12},
}


def test_the_embedded_model_learns_two_rules_and_the_adapter_loads_with_plain_peft(tmp_path: Path) -> None:
    """16 pairs a rule, 12 held out; 4 steps of SFT, 12 of the preference stage. Pairs differ in their rule alone."""
    model = {"model_name_or_path": EMBEDDED}
    life = Life.create(tmp_path / "life", build_config(LifeConfig, SETTINGS | {"model": model}))
    assert life.directory.manifest.base.model_name_or_path == EMBEDDED_HUB_ID
    for task in load_suite(16, test_pairs=12)[:2]:
        life.learn(task)

    accuracy, margin = life.scores["preference_accuracy"], life.scores["margin"]
    assert accuracy.base == {"brief": 0.5, "greet": 0.5}
    for step in range(2):
        # Of 12 pairs at least 9 are ranked right; a coin would do so once in 14 times for one rule.
        assert (accuracy[step, step] or 0) >= 0.75, accuracy.rows
        assert (margin[step, step] or 0) > 0, margin.rows
    assert (accuracy[1, 0] or 0) > 0.5, accuracy.rows

    model_in_life, tokenizer = Life.open(life.directory.path).load()
    ids = torch.tensor([tokenizer.encode("My parcel has not come. Where is it?")])
    with torch.no_grad():
        expected = model_in_life.eval()(input_ids=ids).logits
        base = load_base(ModelConfig(model_name_or_path=EMBEDDED))
        folder = life.directory.path / "versions" / "02-greet"
        assert not torch.equal(base.model(input_ids=ids).logits, expected)
        plain = PeftModel.from_pretrained(base.model, folder).eval()
        assert torch.equal(plain(input_ids=ids).logits, expected)
