"""The code that the page gives to copy: it runs, and it loads what the life would load itself."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.tiny import letter_task

from lifealign.life.card.loading_code import short_name
from lifealign.life.life import Life
from lifealign.report.page.life_page import life_code, life_page, peft_code

MakeLife = Callable[..., Life]


def ran(code: str | None) -> dict[str, Any]:
    """Names that are there after code has run."""
    assert code is not None
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.fixture
def life(make_life: MakeLife, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    made = make_life(name='it\'s "mine"', evaluation={"metrics": ("margin",), "general_text": None})
    made.learn(letter_task("one", "a", "b"))
    monkeypatch.chdir(tmp_path)  # the code names the life by its folder, not by where it lay
    return made


def test_both_ways_load_the_same_model_in_the_dtype_of_the_life(life: Life) -> None:
    own, with_peft = ran(life_code(life)), ran(peft_code(life))
    assert with_peft["model"].dtype == torch.float32
    text = own["tokenizer"]("one 1", return_tensors="pt").input_ids
    assert torch.equal(with_peft["tokenizer"]("one 1", return_tensors="pt").input_ids, text)
    with torch.no_grad():
        assert torch.equal(own["model"](text).logits, with_peft["model"](text).logits)
    assert "versions/01-one" in str(peft_code(life)) and "01-one" in life_page(life)


def pretended(
    base: str,
    dtype: str = "auto",
    revision: str | None = None,
    file: str = "adapter_model.safetensors",
    in_4bit: bool = False,
) -> Any:
    """As much of a life as the code needs."""
    return SimpleNamespace(
        versions=[SimpleNamespace(name="02-tone", files={f"versions/02-tone/{file}": None})],
        directory=SimpleNamespace(
            path=Path("bot"),
            manifest=SimpleNamespace(base=SimpleNamespace(model_name_or_path=base, revision=revision)),
        ),
        shown=SimpleNamespace(model=SimpleNamespace(dtype=dtype, load_in_4bit=in_4bit)),
    )


def test_a_hub_model_is_loaded_at_its_revision() -> None:
    code = str(peft_code(pretended("org/model", revision="abc123")))
    assert 'name = "org/model"' in code
    assert 'AutoTokenizer.from_pretrained(name, revision="abc123")' in code
    assert 'from_pretrained(name, revision="abc123", dtype="bfloat16")' in code


def test_a_gguf_file_is_loaded_from_its_folder_as_plain_layers() -> None:
    code = str(peft_code(pretended("/models/small.gguf", dtype="float32")))
    assert 'name = "/models"' in code and 'from_pretrained(name, gguf_file="small.gguf")' in code
    assert 'dtype="float32", quantization_config=GgufConfig(dequantize=True))' in code
    assert "AutoTokenizer, GgufConfig" in code
    compile(code, "page", "exec")


def test_a_pool_of_prompts_is_nothing_for_peft() -> None:
    assert peft_code(pretended("org/model", file="prompt_pool.safetensors")) is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [("org/model", "org/model"), ("/a/b/model", "model"), ("a/b/model", "model"), ("model", "model")],
)
def test_a_model_on_disk_is_named_by_its_folder_in_a_sentence(model: str, expected: str) -> None:
    assert short_name(model) == expected


def test_a_base_in_4_bits_is_loaded_in_4_bits() -> None:
    code = str(peft_code(pretended("org/model", dtype="float32", in_4bit=True)))
    compile(code, "code", "exec")
    assert "from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig" in code
    assert 'bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32")' in code
    assert 'from_pretrained(name, dtype="float32", quantization_config=four_bit)' in code
