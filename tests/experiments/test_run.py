"""Experiment files: the tasks they name, the life they belong to, and what the result file says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from tests.tiny import letter_task
from tests.writers import write_general_text, write_splits

from lifealign.data.suites.paper import ORDERS
from lifealign.errors import ConfigError, DataError, LifeError
from lifealign.experiments.result_file import load_result
from lifealign.experiments.result_of_life import result_of, save_result
from lifealign.experiments.run import open_or_create, run_experiment
from lifealign.experiments.settings import ExperimentConfig
from lifealign.experiments.tasks import load_tasks, order_of
from lifealign.life.disk.gate_files import retention_of
from lifealign.life.disk.learnt import read_adapter_of
from lifealign.life.life import Life
from lifealign.settings.section import build_config
from lifealign.storage import files as storage

Experiment = Callable[..., ExperimentConfig]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two tasks."""
    folder = tmp_path_factory.mktemp("data")
    for name, good, bad in (("one", "a", "b"), ("two", "c", "d")):
        write_splits(folder, letter_task(name, good, bad))
    return folder


def configured(output: Path, model: Path, data: Path, **sections: Any) -> ExperimentConfig:
    small = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    settings = {
        "output_dir": str(output),
        "model": {"model_name_or_path": str(model), "dtype": "float32"},
        "lora": {"lora_r": 4, "lora_alpha": 8},
        "sft": small | {"learning_rate": 1e-2},
        "preference": small | {"learning_rate": 1e-2},
        "evaluation": {"max_new_tokens": 4, "general_text": write_general_text(data)},
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
    assert result == load_result(lived.directory.path / "result.json")
    written = json.loads((lived.directory.path / "result.json").read_text())
    assert written.keys() == {
        *("label", "order", "method", "settings", "environment", "base", "one_model"),
        *("scores", "outcomes", "general_text", "general_text_holes", "cost", "steps", "content_hash"),
    }
    assert (result.label, result.order) == ("LifeAlign", "one, two")
    assert result.method == "lifealign" and written["settings"]["method"]["energy_kept"] == 0.9
    assert result.one_model is True
    assert result.seed == 42 and result.settings == lived.config.model_dump(mode="json")
    assert result.environment.keys() == {"torch", "transformers", "peft"}
    assert result.base.model_name_or_path == str(tiny_folder)
    assert result.base.fingerprint == lived.workspace.base_fingerprint
    assert written["scores"] == {metric: matrix.as_dict() for metric, matrix in lived.scores.items()}
    assert written["general_text"] == [record.general for record in lived.records]
    assert [(step.name, step.replayed_pairs, step.left_out) for step in result.steps] == [
        ("01-one", 0, 0),
        ("02-two", 1, 0),
    ]
    assert written["steps"][1]["tasks"][0] | {"data_hash": ""} == {
        "name": "two",
        "train_pairs": 8,
        "test_pairs": 4,
        "data_hash": "",
    }


def test_the_result_file_has_the_outcome_of_every_held_out_example(lived: Life) -> None:
    result = result_of(lived)
    assert result.outcomes.keys() == result.scores.keys() == {"preference_accuracy", "margin"}
    for metric, matrix in result.scores.items():
        for outcomes, scores in zip(result.outcomes[metric], matrix.rows, strict=True):
            assert {task: len(each) for task, each in outcomes.items()} == dict.fromkeys(scores, 4)
            assert {task: fmean(each) for task, each in outcomes.items()} == pytest.approx(scores, abs=1e-4)
    assert {one for row in result.outcomes["preference_accuracy"] for each in row.values() for one in each} <= {
        0,
        0.5,
        1,
    }


def rewritten(life: Life, folder: Path, change: Callable[[str, dict[str, Any]], None]) -> Life:
    """A copy of a life, changed in every ``scores.json`` and ``time.json`` of its steps."""
    shutil.copytree(life.directory.path, folder)
    manifest = json.loads((folder / "life.json").read_text())
    for version in manifest["versions"][1:]:
        for name in ("scores", "time"):
            file = f"tasks/{version['name']}/{name}.json"
            written = json.loads((folder / file).read_text())
            change(name, written)
            storage.write_json(folder / file, written)
            version["files"][file] = storage.file_record(folder / file)
    storage.write_sealed_json(folder / "life.json", manifest)
    return Life.open(folder)


def test_the_cost_is_what_the_life_has_taken_and_has_to_keep(lived: Life, tmp_path: Path) -> None:
    peaks = iter((300, 200))

    def measured(name: str, written: dict[str, Any]) -> None:
        if name == "time":
            assert 0 <= written["learning_seconds"] <= written["seconds"]
            assert written["peak_memory_bytes"] > 100e6  # the process with its libraries is in it
            written |= {"seconds": 10.0, "learning_seconds": 7.5, "peak_memory_bytes": next(peaks)}

    folder = tmp_path / "measured"
    cost = result_of(rewritten(lived, folder, measured)).cost
    updates = [folder / f"memory/{step}.safetensors" for step in ("01-one", "02-two")]
    kept = [*updates, *(folder / "replay").iterdir()]
    assert len(kept) == 4
    assert cost is not None and cost.model_dump() == {
        "seconds": 15.0,
        "seconds_with_scoring": 20.0,
        "state_bytes": sum(path.stat().st_size for path in kept),
        "adapter_bytes": (folder / "versions/02-two/adapter_model.safetensors").stat().st_size,
        "peak_memory_bytes": 300,
    }


def test_a_method_that_keeps_nothing_has_no_state_and_a_model_per_task_counts_as_often(experiment: Experiment) -> None:
    seqft = result_of(run_experiment(experiment(method="seqft", output_dir=str(experiment().output_dir / "seqft"))))
    stl = result_of(run_experiment(experiment(method="stl", output_dir=str(experiment().output_dir / "stl"))))
    assert seqft.cost is not None and stl.cost is not None
    assert seqft.cost.state_bytes == 0
    ewc = run_experiment(experiment(method="ewc", output_dir=str(experiment().output_dir / "ewc")))
    kept = result_of(ewc).cost
    assert kept is not None and kept.state_bytes == 2 * sum(
        factor.nbytes for factor in read_adapter_of(ewc.directory).values()
    )
    assert stl.one_model is False
    assert stl.cost.adapter_bytes == 2 * seqft.cost.adapter_bytes


def test_the_result_file_has_the_loss_of_every_optimizer_step(lived: Life) -> None:
    # batches of 4: 8 pairs are 2 steps an epoch, 9 are 3; two epochs
    for step, count in zip(result_of(lived).steps, (4, 6), strict=True):
        assert {stage: len(losses) for stage, losses in step.losses.items()} == {"sft": count, "preference": count}
        log = lived.directory.json(f"tasks/{step.name}/training.json")["stages"]
        for stage, losses in step.losses.items():
            assert losses == pytest.approx([row["loss"] for row in log[stage]], abs=5e-6)
            summary = step.stages[stage].model_dump()
            mean = {
                name: pytest.approx(sum(row[name] for row in log[stage]) / count, abs=5e-6) for name in log[stage][0]
            }
            assert summary == {"optimizer_steps": count, "first": log[stage][0], "last": log[stage][-1], "mean": mean}
        last = step.stages["preference"].last
        assert last is not None and last.keys() > {"loss", "grad_norm", "rewards/margins", "learning_rate"}
        assert step.seconds > 0


def test_the_result_file_has_the_figures_of_consolidation_as_means(lived: Life) -> None:
    for step in result_of(lived).steps:
        factors = lived.directory.json(f"tasks/{step.name}/consolidation.json")["task"]["factors"]
        assert len(factors) == 8  # two layers, two modules, two factors
        mean, by_kind = step.consolidation["task"].model_dump(), step.consolidation_by_factor["task"]
        assert mean.keys() == {"rank_kept", "energy_kept", "overlap_energy", "norm_before", "norm_after"}
        assert by_kind.keys() == {f"{module}.lora_{factor}" for module in ("q_proj", "v_proj") for factor in "AB"}
        for figure in mean:
            assert mean[figure] == pytest.approx(sum(factor[figure] for factor in factors.values()) / 8)
            for kind, means in by_kind.items():
                two = [factor[figure] for name, factor in factors.items() if kind in name]
                assert len(two) == 2 and getattr(means, figure) == pytest.approx(sum(two) / 2, abs=1e-5)
        assert 1 <= mean["rank_kept"] <= 4 and 0.9 <= mean["energy_kept"] <= 1
        assert (mean["overlap_energy"] > 0) == (step.name == "02-two")
        assert 0 < mean["norm_after"] <= mean["norm_before"]


def test_a_stage_that_is_switched_off_has_no_losses(experiment: Experiment, tmp_path: Path) -> None:
    life = run_experiment(experiment(sft={"num_train_epochs": 0}))
    (first, _second) = result_of(life).steps
    nothing = {"optimizer_steps": 0, "first": None, "last": None, "mean": None}
    assert first.losses["sft"] == [] and first.stages["sft"].model_dump() == nothing
    save_result(life, tmp_path / "results" / "copy.json")
    assert load_result(tmp_path / "results" / "copy.json") == result_of(life)


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


def test_a_task_of_an_experiment_may_have_a_gate_of_its_own(experiment: Experiment, data: Path) -> None:
    """Its prompts are trained on neither by the task nor by a later one, and its limit is the task's."""
    rows = (data / "one-train.jsonl").read_text().splitlines(keepends=True)
    (data / "one-gate.jsonl").write_text("".join(rows[:3]))
    one = {"name": "one", "train": str(data / "one-train.jsonl"), "gate": str(data / "one-gate.jsonl"), "max_loss": 0.2}
    two = {"name": "two", "train": str(data / "two-train.jsonl")}
    gated = experiment(tasks=[one, two], retention={"mode": "warn"})
    task = load_tasks(gated)[0]
    assert (len(task.gate), task.max_loss, len(task.train)) == (3, 0.2, len(rows) - 3)
    evidence = retention_of(run_experiment(gated).directory, run_experiment(gated).steps[1])
    assert evidence is not None and evidence.losses["one"].prompts == 3 and evidence.losses["one"].max_loss == 0.2
    with pytest.raises(ConfigError, match="task 'one': found a gate or max_loss, expected neither: the life's"):
        run_experiment(experiment(tasks=[one, two], output_dir=str(data / "off"), retention={"mode": "off"}))


def test_a_task_supersedes_one_that_is_met_before_it(experiment: Experiment, data: Path) -> None:
    one = {"name": "one", "train": str(data / "one-train.jsonl")}
    two = {"name": "two", "train": str(data / "two-train.jsonl"), "supersedes": ["one"]}
    assert [task.supersedes for task in load_tasks(experiment(tasks=[one, two]))] == [(), ("one",)]
    for sections in ({"tasks": [two, one]}, {"tasks": [one, two], "order": ["two", "one"]}):
        with pytest.raises(ConfigError, match="task 'two': supersedes: found 'one', expected a task that is learnt b"):
            load_tasks(experiment(**sections))
    with pytest.raises(ConfigError, match=r"found 'onee', expected .*: one; did you mean one"):
        load_tasks(experiment(tasks=[one, two | {"supersedes": ["onee"]}]))


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


# -- orders and folders of data ----------------------------------------------------------------------------------------

RULES = ("brief", "greet", "order-number", "escalate")
PAPER = ("capybara", "hc3", "hh-harmless", "hh-helpful", "safe-rlhf", "truthfulqa")


@pytest.mark.parametrize(
    ("sections", "order"),
    [
        ({}, ("one", "two")),
        ({"order": ["two", "one"]}, ("two", "one")),
        ({"order": ["two"]}, ("two",)),
        ({"tasks": None, "suite": "support-desk"}, RULES),
        ({"tasks": None, "suite": "support-desk", "order": ["escalate", "brief"]}, ("escalate", "brief")),
        ({"tasks": None, "suite": "paper"}, PAPER),
        ({"tasks": None, "suite": "paper", "order": "order2"}, PAPER[::-1]),
        ({"tasks": None, "suite": "paper", "order": "order3"}, ORDERS["order3"]),
        ({"tasks": None, "suite": "paper", "order": ["hc3", "capybara"]}, ("hc3", "capybara")),
    ],
)
def test_an_order_is_what_is_listed_or_named_or_everything(
    experiment: Experiment, sections: dict[str, Any], order: tuple[str, ...]
) -> None:
    assert order_of(experiment(**sections)) == order


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"order": ["one", "tow"]},
            r"order\[1\]: found 'tow' in the order, expected each of .*: one, two; did you mean two",
        ),
        (
            {"order": ["one", "two", "one"]},
            r"order\[2\]: found 'one' again in the order, expected each .* at most once",
        ),
        (
            {"order": "order1"},
            r"order: found 'order1', expected a list of tasks; only the paper's suite has named orders",
        ),
        (
            {"tasks": None, "suite": "support-desk", "order": ["hc3"]},
            r"order\[0\]: found 'hc3' in the order, .*brief, greet",
        ),
        (
            {"tasks": None, "suite": "paper", "order": ["brief"]},
            r"order\[0\]: found 'brief' in the order, .*capybara, hc3",
        ),
        (
            {"tasks": None, "suite": "paper", "order": "order4"},
            r"order: found 'order4', expected one of order1, order2, order3, or a list of tasks; did you mean order",
        ),
        (
            {"order": []},
            r"order: found a list of 0, expected the name of an order .*, or a list of tasks, at least one",
        ),
        ({"order": 7}, r"order: found 7, expected the name of an order of the paper's catalog, or a list of tasks"),
        ({"order": ["one", 7]}, r"order\[1\]: found 7, expected a name"),
    ],
)
def test_an_order_that_cannot_be_is_one_line_and_makes_nothing(
    experiment: Experiment, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        run_experiment(experiment(**sections))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_stream_is_met_in_the_order_that_was_asked_for(experiment: Experiment) -> None:
    life = run_experiment(experiment(order=["two", "one"], method="seqft"))
    assert [version.name for version in life.steps] == ["01-two", "02-one"]
    assert [task.name for task in load_tasks(experiment(order=["two"]))] == ["two"]


def test_a_stream_too_short_for_its_method_is_found_before_a_life_is_made(
    experiment: Experiment, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="method mtl: found a stream of 1 task, expected at least 2"):
        run_experiment(experiment(order=["two"], method="mtl"))
    assert not (tmp_path / "out").exists()


def folder_of(data: Path, folder: Path, *names: str) -> Path:
    """A folder as ``--data`` takes it."""
    for name in names:
        for split in ("train", "test"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / f"one-{split}.jsonl", folder / name / f"{split}.jsonl")
    return folder


def test_a_folder_stands_in_for_every_dataset_of_the_hub_and_for_no_file(
    experiment: Experiment, data: Path, tmp_path: Path
) -> None:
    tasks = [
        {"name": "far", "train": "hub:someone/rows:train", "test": "hub:someone/rows:test", "max_train": 3},
        {"name": "untested", "train": "hub:someone/other"},
        {"name": "near", "train": str(data / "two-train.jsonl"), "test": "hub:someone/third:test"},
    ]
    folder = folder_of(data, tmp_path / "rows", "far", "untested", "near")
    far, untested, near = load_tasks(experiment(tasks=tasks, data_dir=str(folder)))
    assert (len(far.train), len(far.test)) == (3, 4) and far.train[0].source == f"{folder / 'far' / 'train.jsonl'}:1"
    assert (len(untested.train), len(untested.test)) == (8, 0)
    assert near.train[0].source == f"{data / 'two-train.jsonl'}:1"
    assert near.test[0].source == f"{folder / 'near' / 'test.jsonl'}:1"
    (folder / "near" / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"rows/near/test\.jsonl: found no such file"):
        load_tasks(experiment(tasks=tasks, data_dir=str(folder)))


def test_a_folder_stands_in_for_the_papers_datasets(experiment: Experiment, data: Path, tmp_path: Path) -> None:
    folder = folder_of(data, tmp_path / "paper", "hc3", "capybara")
    suite = {"tasks": None, "suite": "paper", "data_dir": str(folder), "suite_pairs": 5, "suite_test_pairs": 2}
    tasks = load_tasks(experiment(**suite, order=["hc3", "capybara"]))
    assert [(task.name, len(task.train), len(task.test)) for task in tasks] == [("hc3", 5, 2), ("capybara", 5, 2)]
    with pytest.raises(
        DataError, match=r"hh-harmless/train\.jsonl: found no such file.*complete tasks in .*: capybara, hc3"
    ):
        load_tasks(experiment(**suite, order="order1"))


@pytest.mark.parametrize("sections", [{}, {"tasks": None, "suite": "support-desk"}], ids=["files", "embedded"])
def test_a_folder_that_nothing_would_be_read_from_is_refused(experiment: Experiment, sections: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="data_dir: needs data from the hub, which it replaces"):
        experiment(**sections, data_dir="/here")
