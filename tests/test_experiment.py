"""Experiment files: the tasks they name, the life they belong to, and what the result file says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import letter_task

from lifealign.config import ExperimentConfig
from lifealign.config_file import build_config
from lifealign.errors import ConfigError, DataError, LifeError
from lifealign.experiment import load_tasks, open_or_create, result_of, run_experiment, save_result
from lifealign.life import Life

Experiment = Callable[..., ExperimentConfig]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two tasks."""
    folder = tmp_path_factory.mktemp("data")
    for name, good, bad in (("one", "a", "b"), ("two", "c", "d")):
        task = letter_task(name, good, bad)
        for split, pairs in (("train", task.train), ("test", task.test)):
            rows = [{"prompt": p.prompt[0].content, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
            (folder / f"{name}-{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def configured(output: Path, model: Path, data: Path, **sections: Any) -> ExperimentConfig:
    small = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    settings = {
        "output_dir": str(output),
        "model": {"model_name_or_path": str(model), "dtype": "float32"},
        "lora": {"lora_r": 4, "lora_alpha": 8},
        "sft": small | {"learning_rate": 1e-2},
        "preference": small | {"learning_rate": 1e-2},
        "evaluation": {"max_new_tokens": 4},
        "tasks": [
            {"name": name, "train": str(data / f"{name}-train.jsonl"), "test": str(data / f"{name}-test.jsonl")}
            for name in ("one", "two")
        ],
    }
    return build_config(ExperimentConfig, settings | sections)


@pytest.fixture
def experiment(tmp_path: Path, tiny_folder: Path, data: Path) -> Experiment:
    """Makes experiments on the tiny model; keywords replace sections."""
    return lambda **sections: configured(tmp_path / "out", tiny_folder, data, **sections)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, data: Path) -> Life:
    """A life that has been through the experiment; tests only read it."""
    return run_experiment(configured(tmp_path_factory.mktemp("lived") / "out", tiny_folder, data))


def test_the_result_file_says_what_came_out_and_what_it_took(lived: Life, tiny_folder: Path) -> None:
    result = result_of(lived)
    assert result == json.loads((lived.directory.path / "result.json").read_text())
    assert result["method"] == "lifealign" and result["settings"]["method"]["energy_kept"] == 0.9
    assert result["settings"]["seed"] == 42
    assert result["environment"].keys() == {"torch", "transformers", "peft"}
    assert result["base"]["model_name_or_path"] == str(tiny_folder)
    assert result["base"]["fingerprint"] == lived.base_fingerprint
    assert result["scores"] == {metric: matrix.as_dict() for metric, matrix in lived.scores.items()}
    assert [(step["name"], step["replayed_pairs"], step["left_out"]) for step in result["steps"]] == [
        ("01-one", 0, 0),
        ("02-two", 1, 0),
    ]
    assert result["steps"][1]["tasks"][0] | {"data_hash": ""} == {
        "name": "two",
        "train_pairs": 8,
        "test_pairs": 4,
        "data_hash": "",
    }


def test_the_result_file_has_the_loss_of_every_optimizer_step(lived: Life) -> None:
    # batches of 4: 8 pairs are 2 steps an epoch, 9 are 3; two epochs
    for step, count in zip(result_of(lived)["steps"], (4, 6), strict=True):
        assert {stage: len(losses) for stage, losses in step["losses"].items()} == {"sft": count, "preference": count}
        log = lived.directory.json(f"tasks/{step['name']}/training.json")["stages"]
        for stage, losses in step["losses"].items():
            assert losses == pytest.approx([row["loss"] for row in log[stage]], abs=5e-6)
            summary = step["stages"][stage]
            assert summary == {"optimizer_steps": count, "first": log[stage][0], "last": log[stage][-1]}
        assert step["stages"]["preference"]["last"].keys() > {"loss", "grad_norm", "rewards/margins", "learning_rate"}
        assert step["seconds"] > 0


def test_the_result_file_has_the_figures_of_consolidation_as_means(lived: Life) -> None:
    for step in result_of(lived)["steps"]:
        factors = lived.directory.json(f"tasks/{step['name']}/consolidation.json")["task"]["factors"]
        assert len(factors) == 8  # two layers, two modules, two factors
        mean, by_kind = step["consolidation"]["task"], step["consolidation_by_factor"]["task"]
        assert mean.keys() == {"rank_kept", "energy_kept", "overlap_energy", "norm_before", "norm_after"}
        assert by_kind.keys() == {f"{module}.lora_{factor}" for module in ("q_proj", "v_proj") for factor in "AB"}
        for figure in mean:
            assert mean[figure] == pytest.approx(sum(factor[figure] for factor in factors.values()) / 8)
            for kind, means in by_kind.items():
                two = [factor[figure] for name, factor in factors.items() if kind in name]
                assert len(two) == 2 and means[figure] == pytest.approx(sum(two) / 2, abs=1e-5)
        assert 1 <= mean["rank_kept"] <= 4 and 0.9 <= mean["energy_kept"] <= 1
        assert (mean["overlap_energy"] > 0) == (step["name"] == "02-two")
        assert 0 < mean["norm_after"] <= mean["norm_before"]


def test_a_stage_that_is_switched_off_has_no_losses(experiment: Experiment, tmp_path: Path) -> None:
    life = run_experiment(experiment(sft={"num_train_epochs": 0}))
    (first, _second) = result_of(life)["steps"]
    assert first["losses"]["sft"] == [] and first["stages"]["sft"] == {"optimizer_steps": 0}
    save_result(life, tmp_path / "results" / "copy.json")
    assert json.loads((tmp_path / "results" / "copy.json").read_text()) == result_of(life)


def test_tasks_are_read_in_order_and_cut_to_size(experiment: Experiment, data: Path) -> None:
    one = {"name": "b", "train": str(data / "one-train.jsonl"), "max_train": 3}
    two = {
        "name": "a",
        "train": str(data / "two-train.jsonl"),
        "test": str(data / "two-test.jsonl"),
        "max_test": 2,
        "check": {"max_words": 2},
    }
    first, second = load_tasks(experiment(tasks=[one, two]))
    assert (first.name, len(first.train), len(first.test), first.check) == ("b", 3, 0, None)
    assert (second.name, len(second.train), len(second.test)) == ("a", 8, 2)
    assert second.check is not None and second.check.max_words == 2
    assert first.train[2].source == f"{data / 'one-train.jsonl'}:3"


def test_the_suite_is_four_tasks_with_their_checks(experiment: Experiment) -> None:
    tasks = load_tasks(experiment(tasks=None, suite="support-desk", suite_pairs=5))
    assert [(task.name, len(task.train), len(task.test)) for task in tasks] == [
        (name, 5, 48) for name in ("brief", "greet", "order-number", "escalate")
    ]
    assert all(task.check for task in tasks)
    with pytest.raises(ConfigError, match=r"suite_pairs: found 1000, expected 1 to 160"):
        load_tasks(experiment(tasks=None, suite="support-desk", suite_pairs=1000))


def test_a_file_that_is_not_there_is_found_before_a_life_is_made(experiment: Experiment, tmp_path: Path) -> None:
    tasks = [{"name": "one", "train": str(tmp_path / "nothing.jsonl")}]
    with pytest.raises(DataError, match=r"nothing\.jsonl: found no such file"):
        run_experiment(experiment(tasks=tasks))
    assert not (tmp_path / "out").exists()


def test_the_same_settings_open_the_life_again(experiment: Experiment) -> None:
    made = open_or_create(experiment())
    opened = open_or_create(experiment())
    assert opened.directory.manifest == made.directory.manifest
    assert opened.config == made.config


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"seed": 1}, r"seed: 42 there, 1 here"),
        ({"lora": {"lora_r": 8, "lora_alpha": 8}}, r"lora\.lora_r: 4 there, 8 here"),
        ({"method": {"name": "lifealign", "energy_kept": 0.5}}, r"method\.energy_kept: 0\.9 there, 0\.5 here"),
        (
            {"method": "er"},
            r"method\.name: 'lifealign' there, 'er' here; method\.focal_exponent: 2\.0 there",
        ),
        ({"replay": {"capacity": 5}}, r"replay: None there, \{.*'capacity': 5.*\} here"),
        ({"evaluation": {"max_new_tokens": 4, "prompts": 2}}, r"evaluation\.prompts: None there, 2 here"),
    ],
    ids=["seed", "rank", "option", "method", "replay", "evaluation"],
)
def test_other_settings_are_refused_with_the_keys_that_differ(
    experiment: Experiment, sections: dict[str, Any], message: str
) -> None:
    life = open_or_create(experiment())
    before = (life.directory.path / "life.json").read_bytes()
    with pytest.raises(LifeError, match=rf"found a life with other settings \({message}.*choose another output_dir"):
        open_or_create(experiment(**sections))
    assert (life.directory.path / "life.json").read_bytes() == before


def test_a_suite_is_read_in_the_size_and_split_that_were_asked_for(tmp_path: Path) -> None:
    sizes = {"suite_pairs": 3, "suite_test_pairs": 2}
    for split in ("test", "dev"):
        settings = {"output_dir": str(tmp_path), "suite": "support-desk", "suite_held_out": split, **sizes}
        tasks = load_tasks(build_config(ExperimentConfig, settings))
        assert [(len(task.train), len(task.test)) for task in tasks] == [(3, 2)] * 4
        assert all(f"/{split}.jsonl:" in pair.source for task in tasks for pair in task.test)
    too_many = build_config(
        ExperimentConfig, {"output_dir": str(tmp_path), "suite": "support-desk", "suite_pairs": 161}
    )
    with pytest.raises(ConfigError, match="suite_pairs: found 161, expected 1 to 160"):
        load_tasks(too_many)
