"""Settings: documented defaults, every mistake in a YAML file named by its place, and a dump that reads back."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lifealign.data.replay import ReplayConfig
from lifealign.errors import ConfigError
from lifealign.experiments.settings import ExperimentConfig, load_experiment
from lifealign.life.settings import LifeConfig
from lifealign.methods import METHODS
from lifealign.methods.er import ER
from lifealign.methods.lifealign import LifeAlign
from lifealign.settings.section import build_config, dump_config
from lifealign.settings.yaml_file import load_config
from lifealign.training.settings import PreferenceConfig

Write = Callable[[str | bytes], Path]

SMALL = "output_dir: out\nsuite: support-desk\n"
TASKS = "output_dir: out\ntasks:\n  - {name: tone, train: tone.jsonl, test: tone-test.jsonl}\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_are_those_of_the_released_code(write: Write) -> None:
    config = load_experiment(write(SMALL))
    assert config.method == LifeAlign(focal_exponent=2, energy_kept=0.9, overlap_kept=0.5, consolidate_at="task")
    assert (config.sft.learning_rate, config.preference.learning_rate, config.preference.beta) == (1e-4, 5e-6, 0.1)
    for stage in (config.sft, config.preference):
        assert stage.per_device_train_batch_size * stage.gradient_accumulation_steps == 16
    assert config.replay is None and config.seed == 42 and config.output_dir == Path("out")


# Each: the file (after SMALL), and the whole message without "FILE:" in front of each line.
MISTAKES = {
    "unknown key, near": (
        "preference:\n  betta: 0.1\n",
        "4: preference.betta: found an unknown key; did you mean beta?",
    ),
    "unknown key, elsewhere": ("beta: 0.1\n", "3: beta: found an unknown key; did you mean preference.beta?"),
    "unknown key, far": (
        "replay: {zzz: 1}\n",
        "3: replay.zzz: found an unknown key, expected one of fraction, capacity",
    ),
    "unknown key, merge": ("<<: {seed: 1}\n", "3: <<: found an unknown key, expected one of model, lora,"),
    "below range": ("preference:\n  beta: -1\n", "4: preference.beta: found -1, expected a number greater than 0"),
    "above range": (
        "method: {name: lifealign, overlap_kept: 1.5}\n",
        "3: method.overlap_kept: found 1.5, expected a number of at most 1",
    ),
    "range, open end": (
        "method: {name: lifealign, energy_kept: 0}\n",
        "3: method.energy_kept: found 0, expected a number greater than 0",
    ),
    "negative epochs": (
        "sft: {num_train_epochs: -1}\n",
        "3: sft.num_train_epochs: found -1, expected a number of at least 0",
    ),
    "part of an epoch": (
        "sft: {num_train_epochs: 1.5}\n",
        "3: sft.num_train_epochs: found 1.5, expected a whole number",
    ),
    "word for a number": ("seed: many\n", "3: seed: found 'many', expected a whole number"),
    "boolean for a number": ("preference: {beta: true}\n", "3: preference.beta: found true, expected a number"),
    "boolean for a method's number": (
        "method: {name: lifealign, energy_kept: yes}\n",
        "3: method.energy_kept: found true, expected a number",
    ),
    "number for a boolean": ("data: {share_prefix: 7}\n", "3: data.share_prefix: found 7, expected true or false"),
    "number for text": ("model: {revision: 7}\n", "3: model.revision: found 7, expected text"),
    "text for a list": (
        "lora: {lora_target_modules: q_proj}\n",
        "3: lora.lora_target_modules: found 'q_proj', expected a list",
    ),
    "empty list": (
        "lora: {lora_target_modules: []}\n",
        "3: lora.lora_target_modules: found a list of 0, expected at least",
    ),
    "not finite": ("sft: {learning_rate: .inf}\n", "3: sft.learning_rate: found inf, expected a finite number"),
    "not a choice": (
        "preference: {reference: previous}\n",
        "3: preference.reference: found 'previous', expected one of 'base' or 'task_start'",
    ),
    "endless number": (
        f"seed: 0x{'f' * 9000}\n",
        "3: seed: found a number of more than 15 digits, expected a number less than",
    ),
    "endless learning rate": (
        f"sft: {{learning_rate: 0x{'f' * 9000}}}\n",
        "3: sft.learning_rate: found a number of more",
    ),
    "value for a section": ("sft: 3\n", "3: sft: found 3, expected a section of settings"),
    "unknown method": ("method: lifealing\n", "3: method: found 'lifealing', expected one of lifealign, "),
    "unknown method, near": ("method: lifealing\n", "; did you mean lifealign?"),
    "method without name": (
        "method: {energy_kept: 0.9}\n",
        "3: method: found an object with 'energy_kept', expected one of",
    ),
    "method of another kind": ("method: 3\n", "3: method: found 3, expected one of lifealign, "),
    "another method's option": (
        "method:\n  name: er\n  focal_exponent: 2\n",
        "5: method.focal_exponent: found an option that er does not have (it is one of lifealign",
    ),
    "another method's option, its own": ("method: {name: er, focal_exponent: 2}\n", "expected one of its own: none"),
    "misspelt option": (
        "method: {name: lifealign, overlap_keep: 1}\n",
        "3: method.overlap_keep: found an option that lifealign does not have; did you mean overlap_kept?",
    ),
    "syntax": ("sft: {\n", "4:1: expected the node content, but found"),
    "tab": ("sft:\n\tbeta: 1\n", "4:1: found character '\\t' that cannot start any token"),
    "duplicate key": ("seed: 1\nseed: 2\n", "4:1: found the key seed again, expected it once (first in line 3)"),
    "duplicate key, deep": (
        "sft:\n  {learning_rate: 1,\n   learning_rate: 2}\n",
        "5:4: found the key sft.learning_rate again",
    ),
    "tag": ("seed: !!python/object/apply:os.system ['true']\n", "3:7: found the tag python/object/apply:os.system"),
    "own tag": ("seed: !env SEED\n", "3:7: found the tag !env, expected plain values"),
    "alias": ("sft: &a {learning_rate: 1}\npreference: *a\n", "4:13: found the alias *a, expected the value itself"),
    "two documents": ("---\nseed: 1\n", "3:1: but found another document"),
    "key that is a list": ("[a]: 1\n", "3:1: found a key that is not a word"),
    "control character": ("seed: \x07\n", " found no valid YAML"),
    "impossible number": ("seed: 0b\n", " found"),
    "nesting": ("seed: " + "[" * 5000 + "]" * 5000 + "\n", " found values nested too deep"),
    "both": ("tasks: [{name: a, train: a.jsonl}]\n", "1: found both tasks and suite, expected exactly one of the two"),
    "remote code": ("model: {trust_remote_code: true}\n", "3: model.trust_remote_code: found an unknown key"),
    "a metric there is not": ("evaluation: {metrics: [margins]}\n", "found 'margins', expected some of adherence, "),
    "a metric for which a judge is asked": (
        "evaluation: {metrics: [judge]}\n",
        "evaluation.metrics: found 'judge', expected some of",
    ),
    "a metric twice": ("evaluation: {metrics: [margin, margin]}\n", "found 'margin' twice, expected each metric once"),
    "a temperature without sampling": (
        "evaluation: {temperature: 0.5}\n",
        "evaluation.temperature: found 0.5, expected it with do_sample: true",
    ),
    "general text that nobody reads": (
        "evaluation: {general_text: a.txt, metrics: [margin]}\n",
        "evaluation.general_text: found a file, expected it with perplexity among the metrics",
    ),
    "a tracker there is not": ("report_to: [clearml]\n", "report_to[0]: found 'clearml'"),
    "a licence in words": ("license: Apache License\n", "license: found 'Apache License'"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_place(write: Write, text: str, message: str) -> None:
    path = write(SMALL + text)
    found = error_of(path)
    assert message in found
    assert all(line.startswith(f"{path}:") for line in found.splitlines())
    assert "pydantic" not in found and "\n" not in found


def test_all_mistakes_of_a_file_are_told_at_once(write: Write) -> None:
    path = write("seed: -1\nsft: {learning_rate: 0}\nmethod: {name: lifealign, energy_kept: 2, x: 1}\n")
    assert error_of(path).splitlines() == [
        f"{path}:3: method.x: found an option that lifealign does not have, expected one of its own: "
        "focal_exponent, energy_kept, overlap_kept, consolidate_at",
        f"{path}:3: method.energy_kept: found 2, expected a number of at most 1",
        f"{path}:2: sft.learning_rate: found 0, expected a number greater than 0",
        f"{path}:1: seed: found -1, expected a number of at least 0",
        f"{path}:1: output_dir: found nothing, expected a value; it has no default",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": found null, expected settings"),
        (b"- a\n", ": found a list of 1, expected settings"),
        (b"seed: \xff\n", ": found a byte that is not UTF-8 at offset 6"),
        (b"\xff\xfes\0e\0", ": found a byte that is not UTF-8 at offset 0"),
        (b"output_dir: a\n", ":1: found neither tasks nor suite, expected exactly one of the two"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(write: Write, content: bytes, message: str) -> None:
    path = write(content)
    assert error_of(path).startswith(f"{path}{message}")


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: could not be read: No such file or directory"
    assert error_of(tmp_path) == f"{tmp_path}: found a directory, expected a regular file"
    os.mkfifo(tmp_path / "pipe")
    assert error_of(tmp_path / "pipe") == f"{tmp_path / 'pipe'}: found a pipe, expected a regular file"


@pytest.mark.parametrize("text", ["1e-4", "'1e-4'", "0.0001", "1.0e-4"])
def test_a_float_may_be_written_as_people_do(write: Write, text: str) -> None:
    assert load_experiment(write(SMALL + f"preference: {{learning_rate: {text}}}\n")).preference.learning_rate == 1e-4


def test_general_text_is_found_beside_the_file_that_names_it(write: Write, tmp_path: Path) -> None:
    loaded = load_experiment(write(SMALL + "evaluation: {general_text: texts/own.txt}\n"))
    assert loaded.evaluation.general_text == str(tmp_path / "texts" / "own.txt")


def test_sampling_takes_the_papers_numbers_unless_told_otherwise(write: Write) -> None:
    drawn = load_experiment(write(SMALL + "evaluation: {do_sample: true, top_k: 5}\n")).evaluation
    assert (drawn.temperature, drawn.top_p, drawn.top_k) == (0.95, 0.7, 5)


def test_a_byte_order_mark_is_accepted(write: Write) -> None:
    assert load_experiment(write(b"\xef\xbb\xbf" + SMALL.encode())).suite == "support-desk"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a" * 65, "a b"])
def test_a_task_name_that_is_no_folder_name_is_refused(write: Write, name: str) -> None:
    path = write(f"output_dir: out\ntasks:\n  - name: '{name}'\n    train: a.jsonl\n")
    assert error_of(path).startswith(f"{path}:3: tasks[0].name: found {name!r}, expected 1 to 64 letters")


def test_two_tasks_of_one_name_or_one_file_are_refused(write: Write, tmp_path: Path) -> None:
    path = write(
        "output_dir: out\ntasks:\n- {name: a, train: a.jsonl}\n- {name: b, train: ./a.jsonl}\n- {name: a, train: b}\n"
    )
    assert error_of(path).splitlines() == [
        f"{path}:4: tasks[1].train: found '{tmp_path / 'a.jsonl'}', expected another than tasks[0] has",
        f"{path}:5: tasks[2].name: found 'a', expected another than tasks[0] has",
    ]


def test_mistakes_in_a_task_and_its_check_are_named(write: Write) -> None:
    path = write(
        "output_dir: out\ntasks:\n  - name: a\n    trian: a.jsonl\n    max_train: 0\n    check: {lacks: ['(']}\n"
    )
    found = error_of(path)
    assert f"{path}:3: tasks[0].train: found nothing, expected a value" in found
    assert f"{path}:4: tasks[0].trian: found an unknown key; did you mean train?" in found
    assert f"{path}:5: tasks[0].max_train: found 0, expected a number of at least 1" in found
    assert f"{path}:6: tasks[0].check.lacks: found the pattern '(', expected a regular expression" in found


def test_an_option_of_the_suite_needs_the_suite(write: Write) -> None:
    path = write(TASKS + "suite_pairs: 3\n")
    assert error_of(path) == f"{path}:4: suite_pairs: found 3 without a suite, expected it with one"


def test_files_of_tasks_are_relative_to_the_yaml_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(TASKS + "  - {name: hub, train: 'hub:owner/name:test'}\n  - {name: abs, train: /data/a.jsonl}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tasks = load_experiment(Path("..") / path.name).tasks
    assert tasks is not None
    assert (tasks[0].train, tasks[0].test) == (str(tmp_path / "tone.jsonl"), str(tmp_path / "tone-test.jsonl"))
    assert [task.train for task in tasks[1:]] == ["hub:owner/name:test", "/data/a.jsonl"]


@pytest.mark.parametrize("text", ["method: er\n", "method: {name: er}\n"])
def test_a_method_is_a_name_or_a_mapping(write: Write, text: str) -> None:
    assert load_experiment(write(SMALL + text)).method == ER()


def test_overrides_win_and_make_the_sections_they_need(write: Write) -> None:
    path = write(SMALL + "preference: {beta: 0.1, learning_rate: 1e-6}\nreplay: null\n")
    overrides = [
        "preference.beta=2e-1",
        "replay.capacity=7",
        "method.overlap_kept=0.25",
        "lora.lora_target_modules=[o_proj]",
    ]
    config = load_experiment(path, overrides)
    assert (config.preference.beta, config.preference.learning_rate) == (0.2, 1e-6)
    assert config.replay == ReplayConfig(capacity=7)
    assert config.method == LifeAlign(overlap_kept=0.25)
    assert config.lora.lora_target_modules == ("o_proj",)
    assert load_experiment(path, ["method=er"]).method == ER()
    assert load_experiment(path, ["replay="]).replay is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preference.betta=1", ": preference.betta: found an unknown key; did you mean beta?"),
        ("preference.beta=-1", ": preference.beta: found -1, expected a number greater than 0"),
        ("prefrence.beta=1", ": prefrence: found an unknown key; did you mean preference?"),
        ("seed.x=1", ": found a number (1) at seed, expected a section"),
        ("seed", ": found no key and value, expected KEY=VALUE as in preference.beta=0.2"),
        ("a..b=1", ": found no key and value, expected KEY=VALUE as in preference.beta=0.2"),
        ("seed=[", ": expected the node content, but found '<stream end>'"),
        ("seed=!x 1", ": found the tag !x, expected plain values"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(write: Write, override: str, message: str) -> None:
    assert error_of(write(SMALL + "seed: 1\n"), override) == f"--set {override}{message}"


@pytest.mark.parametrize("method", METHODS)
def test_what_is_dumped_reads_back(write: Write, tmp_path: Path, method: str) -> None:
    replay = "" if METHODS[method].memory_use == "none" else "replay: {fraction: 0.5}\n"
    text = f"{replay}sft: {{learning_rate: 5e-6}}\nseed: 7\n"
    check = "  - {name: '2026-01-01', train: ü.jsonl, check: {max_words: 3, lacks: [a, b]}}\n"
    config = load_experiment(write(TASKS + check + text), [f"method={method}"])
    dumped = tmp_path / "far" / "away.yaml"
    dumped.parent.mkdir()
    dumped.write_text(dump_config(config), encoding="utf-8")
    assert load_experiment(dumped) == config
    assert dump_config(load_experiment(dumped)) == dump_config(config)
    assert next(iter(yaml.safe_load(dump_config(config))["method"].items())) == ("name", method)


def test_a_life_has_the_settings_of_an_experiment_without_its_tasks(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(LifeConfig(seed=1)))
    assert load_config(tmp_path / "config.yaml", LifeConfig) == LifeConfig(seed=1)
    assert ExperimentConfig.model_fields.keys() - LifeConfig.model_fields.keys() == {
        "output_dir",
        "tasks",
        "suite",
        "suite_pairs",
        "suite_test_pairs",
        "suite_held_out",
        "order",
        "data_dir",
        "compare",
    }


def test_settings_can_be_made_without_a_file() -> None:
    assert build_config(LifeConfig, {"method": ER(), "preference": {"beta": 0.5}}).preference == PreferenceConfig(
        beta=0.5
    )
    with pytest.raises(ConfigError, match=r"^settings: preference\.beta: found -1"):
        build_config(LifeConfig, {"preference": {"beta": -1}})


KEYS = st.sampled_from([*ExperimentConfig.model_fields, *PreferenceConfig.model_fields, "name", "train", "check", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@given(st.dictionaries(KEYS, VALUES).map(yaml.safe_dump) | st.text())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_file_holds_only_our_own_error_leaves(write: Write, text: str) -> None:
    with suppress(ConfigError):
        load_experiment(write(text.encode(errors="replace")), ["preference.beta=0.2"])


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LifeConfig().preference.beta = 1  # type: ignore[misc]
