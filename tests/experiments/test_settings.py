"""Settings: documented defaults, every mistake in a YAML file named by its place, and a dump that reads back."""

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
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
Fault = tuple[int | None, str | None, str | None, str | None]

SMALL = "output_dir: out\nsuite: support-desk\n"
KEYS_OF_A_FILE = ", ".join(ExperimentConfig.model_fields)
METRICS_OF_A_STEP = (
    "adherence, joint_adherence, preference_accuracy, margin, bleu, rouge_l, paper_bleu, paper_rouge_l, perplexity"
)
OPTIONS_OF_LIFEALIGN = "focal_exponent, energy_kept, overlap_kept, consolidate_at, history_limit"
OR_A_MAPPING = ", or a mapping with one of them as name and its options"
TASKS = "output_dir: out\ntasks:\n  - {name: tone, train: tone.jsonl, test: tone-test.jsonl}\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def error_of(path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    assert caught.value.exit_code == 2
    assert len(caught.value.faults) == len(str(caught.value).splitlines())
    return caught.value


def parts(error: ConfigError) -> list[tuple[str | int | None, ...]]:
    return [astuple(fault) for fault in error.faults]


def test_defaults_are_those_of_the_released_code(write: Write) -> None:
    config = load_experiment(write(SMALL))
    assert config.method == LifeAlign(focal_exponent=2, energy_kept=0.9, overlap_kept=0.5, consolidate_at="task")
    assert (config.sft.learning_rate, config.preference.learning_rate, config.preference.beta) == (1e-4, 5e-6, 0.1)
    for stage in (config.sft, config.preference):
        assert stage.per_device_train_batch_size * stage.gradient_accumulation_steps == 16
    assert config.replay is None and config.seed == 42 and config.output_dir == Path("out")


# Each: the file (after SMALL), and its one fault: line, field, what was found and what was expected.
MISTAKES: dict[str, tuple[str, Fault]] = {
    "unknown key, near": ("preference:\n  betta: 0.1\n", (4, "preference.betta", "an unknown key", "beta")),
    "unknown key, elsewhere": ("beta: 0.1\n", (3, "beta", "an unknown key", "preference.beta")),
    "unknown key, far": ("replay: {zzz: 1}\n", (3, "replay.zzz", "an unknown key", "one of fraction, capacity")),
    "unknown key, merge": ("<<: {seed: 1}\n", (3, "<<", "an unknown key", f"one of {KEYS_OF_A_FILE}")),
    "below range": ("preference:\n  beta: -1\n", (4, "preference.beta", "-1", "a number greater than 0")),
    "above range": (
        "method: {name: lifealign, overlap_kept: 1.5}\n",
        (3, "method.overlap_kept", "1.5", "a number of at most 1"),
    ),
    "range, open end": (
        "method: {name: lifealign, energy_kept: 0}\n",
        (3, "method.energy_kept", "0", "a number greater than 0"),
    ),
    "negative epochs": ("sft: {num_train_epochs: -1}\n", (3, "sft.num_train_epochs", "-1", "a number of at least 0")),
    "part of an epoch": ("sft: {num_train_epochs: 1.5}\n", (3, "sft.num_train_epochs", "1.5", "a whole number")),
    "word for a number": ("seed: many\n", (3, "seed", "'many'", "a whole number")),
    "boolean for a number": ("preference: {beta: true}\n", (3, "preference.beta", "true", "a number")),
    "boolean for a method's number": (
        "method: {name: lifealign, energy_kept: yes}\n",
        (3, "method.energy_kept", "true", "a number"),
    ),
    "number for a boolean": ("data: {share_prefix: 7}\n", (3, "data.share_prefix", "7", "true or false, or 'auto'")),
    "number for text": ("model: {revision: 7}\n", (3, "model.revision", "7", "text")),
    "text for a list": (
        "lora: {lora_target_modules: q_proj}\n",
        (3, "lora.lora_target_modules", "'q_proj'", "a list, or 'auto'"),
    ),
    "empty list": (
        "lora: {lora_target_modules: []}\n",
        (3, "lora.lora_target_modules", "a list of 0", "at least 1 of them, or 'auto'"),
    ),
    "not finite": ("sft: {learning_rate: .inf}\n", (3, "sft.learning_rate", "inf", "a finite number")),
    "not a choice": (
        "preference: {reference: previous}\n",
        (3, "preference.reference", "'previous'", "one of 'base', 'task_start' or 'stage_start'"),
    ),
    "endless number": (
        f"seed: 0x{'f' * 9000}\n",
        (3, "seed", "a number of more than 15 digits", f"a number less than {2**32}"),
    ),
    "endless learning rate": (
        f"sft: {{learning_rate: 0x{'f' * 9000}}}\n",
        (3, "sft.learning_rate", "a number of more than 15 digits", "a number"),
    ),
    "value for a section": ("sft: 3\n", (3, "sft", "3", "a section of settings")),
    "unknown method, near": (
        "method: lifealing\n",
        (3, "method", "'lifealing'", f"one of {', '.join(METHODS)}{OR_A_MAPPING}; did you mean lifealign?"),
    ),
    "method without name": (
        "method: {energy_kept: 0.9}\n",
        (3, "method", "an object with 'energy_kept'", f"one of {', '.join(METHODS)}{OR_A_MAPPING}"),
    ),
    "method of another kind": ("method: 3\n", (3, "method", "3", f"one of {', '.join(METHODS)}{OR_A_MAPPING}")),
    "another method's option": (
        "method:\n  name: er\n  focal_exponent: 2\n",
        (
            5,
            "method.focal_exponent",
            "an option that er does not have (it belongs to lifealign, cumulative)",
            "one of its own: none",
        ),
    ),
    "misspelt option": (
        "method: {name: lifealign, overlap_keep: 1}\n",
        (
            3,
            "method.overlap_keep",
            "an option that lifealign does not have",
            f"one of its own: {OPTIONS_OF_LIFEALIGN}; did you mean overlap_kept?",
        ),
    ),
    "duplicate key": ("seed: 1\nseed: 2\n", (4, None, "the key seed again", "it once (first in line 3)")),
    "duplicate key, deep": (
        "sft:\n  {learning_rate: 1,\n   learning_rate: 2}\n",
        (5, None, "the key sft.learning_rate again", "it once (first in line 4)"),
    ),
    "tag": (
        "seed: !!python/object/apply:os.system ['true']\n",
        (3, None, "the tag python/object/apply:os.system", "plain values"),
    ),
    "own tag": ("seed: !env SEED\n", (3, None, "the tag !env", "plain values")),
    "alias": (
        "sft: &a {learning_rate: 1}\npreference: *a\n",
        (4, None, "the alias *a", "the value itself"),
    ),
    "key that is a list": ("[a]: 1\n", (3, None, "a key that is not a word", None)),
    "impossible number": ("seed: 0b\n", (3, "seed", "'0b'", "a whole number")),
    "nesting": ("seed: " + "[" * 5000 + "]" * 5000 + "\n", (None, None, "values nested too deep", "settings")),
    "both": ("tasks: [{name: a, train: a.jsonl}]\n", (1, None, "both tasks and suite", "exactly one of the two")),
    "remote code": (
        "model: {trust_remote_code: true}\n",
        (
            3,
            "model.trust_remote_code",
            "an unknown key",
            "one of model_name_or_path, revision, dtype, load_in_4bit, attn_implementation",
        ),
    ),
    "a metric there is not": (
        "evaluation: {metrics: [margins]}\n",
        (3, "evaluation.metrics", "'margins'", f"some of {METRICS_OF_A_STEP}; did you mean margin?"),
    ),
    "a metric for which a judge is asked": (
        "evaluation: {metrics: [judge]}\n",
        (
            3,
            "evaluation.metrics",
            "'judge'",
            f"some of {METRICS_OF_A_STEP}; the judge is asked by `lifealign evaluate`",
        ),
    ),
    "a metric twice": (
        "evaluation: {metrics: [margin, margin]}\n",
        (3, "evaluation.metrics", "'margin' twice", "each metric once"),
    ),
    "a temperature without sampling": (
        "evaluation: {temperature: 0.5}\n",
        (3, "evaluation.temperature", None, "sampled answers; add do_sample: true"),
    ),
    "general text that nobody reads": (
        "evaluation: {general_text: a.txt, metrics: [margin]}\n",
        (3, "evaluation.general_text", None, "perplexity among the metrics; add it to metrics"),
    ),
    "a tracker there is not": (
        "report_to: [clearml]\n",
        (3, "report_to[0]", "'clearml'", "one of 'tensorboard', 'wandb', 'trackio' or 'mlflow'"),
    ),
    "a licence in words": (
        "license: Apache License\n",
        (3, "license", "'Apache License'", "String should match pattern '^[a-z0-9][a-z0-9.-]*$'"),
    ),
}


@pytest.mark.parametrize(("text", "fault"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_place(write: Write, text: str, fault: Fault) -> None:
    path = write(SMALL + text)
    error = error_of(path)
    assert parts(error) == [(str(path), *fault)]
    assert str(error).startswith(f"{path}:")
    assert "pydantic" not in str(error) and "\n" not in str(error)


# What the parser of YAML says has no parts. Each: the file (after SMALL), the line and how the message goes on.
@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("sft: {\n", 4, ":4:1: expected the node content, but found '<stream end>'"),
        ("sft:\n\tbeta: 1\n", 4, ":4:1: found character '\\t' that cannot start any token"),
        ("---\nseed: 1\n", 3, ":3:1: but found another document"),
        ("seed: \x07\n", None, ": found invalid YAML (unacceptable character #x0007: special characters are not"),
    ],
)
def test_a_file_that_is_no_yaml_is_refused(write: Write, text: str, line: int | None, message: str) -> None:
    path = write(SMALL + text)
    error = error_of(path)
    assert str(error).startswith(f"{path}{message}") and "\n" not in str(error)
    assert [(fault.path, fault.line, fault.field) for fault in error.faults] == [(str(path), line, None)]


def test_all_mistakes_of_a_file_are_told_at_once(write: Write) -> None:
    path = write("seed: -1\nsft: {learning_rate: 0}\nmethod: {name: lifealign, energy_kept: 2, x: 1}\n")
    error = error_of(path)
    assert parts(error) == [
        (
            str(path),
            3,
            "method.x",
            "an option that lifealign does not have",
            f"one of its own: {OPTIONS_OF_LIFEALIGN}",
        ),
        (str(path), 3, "method.energy_kept", "2", "a number of at most 1"),
        (str(path), 2, "sft.learning_rate", "0", "a number greater than 0"),
        (str(path), 1, "seed", "-1", "a number of at least 0"),
        (str(path), 1, "output_dir", "nothing", "a value; it has no default"),
    ]
    assert str(error).splitlines() == [
        f"{path}:3: method.x: found an option that lifealign does not have, expected one of its own: "
        f"{OPTIONS_OF_LIFEALIGN}",
        f"{path}:3: method.energy_kept: found 2, expected a number of at most 1",
        f"{path}:2: sft.learning_rate: found 0, expected a number greater than 0",
        f"{path}:1: seed: found -1, expected a number of at least 0",
        f"{path}:1: output_dir: found nothing, expected a value; it has no default",
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", (None, None, "null", "settings, one 'key: value' a line")),
        (b"- a\n", (None, None, "a list of 1", "settings, one 'key: value' a line")),
        (b"seed: \xff\n", (None, None, "a byte that is not UTF-8 at offset 6", "YAML")),
        (b"\xff\xfes\0e\0", (None, None, "a byte that is not UTF-8 at offset 0", "YAML")),
        (b"output_dir: a\n", (1, None, None, "tasks or a suite; add one of the two")),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(write: Write, content: bytes, fault: Fault) -> None:
    path = write(content)
    assert parts(error_of(path)) == [(str(path), *fault)]


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert str(error_of(missing)) == f"{missing}: could not be read: No such file or directory"
    assert parts(error_of(missing)) == [(str(missing), None, None, None, None)]
    assert parts(error_of(tmp_path)) == [(str(tmp_path), None, None, "a directory", "a regular file")]
    os.mkfifo(tmp_path / "pipe")
    assert parts(error_of(tmp_path / "pipe")) == [(str(tmp_path / "pipe"), None, None, "a pipe", "a regular file")]


@pytest.mark.parametrize("text", ["1e-4", "'1e-4'", "0.0001", "1.0e-4"])
def test_a_float_may_be_written_as_people_do(write: Write, text: str) -> None:
    assert load_experiment(write(SMALL + f"preference: {{learning_rate: {text}}}\n")).preference.learning_rate == 1e-4


def test_general_text_is_found_beside_the_file_that_names_it(write: Write, tmp_path: Path) -> None:
    loaded = load_experiment(write(SMALL + "evaluation: {general_text: texts/own.txt}\n"))
    assert loaded.evaluation.general_text == str(tmp_path / "texts" / "own.txt")


def test_sampling_takes_the_papers_numbers_unless_told_otherwise(write: Write) -> None:
    drawn = load_experiment(write(SMALL + "evaluation: {do_sample: true, top_k: 5}\n")).evaluation
    assert (drawn.temperature, drawn.top_p, drawn.top_k) == (0.95, 0.7, 5)


def test_a_folder_of_lives_may_be_in_the_home_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_experiment(write("output_dir: ~/lives\nsuite: support-desk\n")).output_dir == tmp_path / "lives"


@pytest.mark.parametrize("pattern", [r"\$\{NAME\}", r"\${NAME}"])
def test_a_pattern_may_look_for_a_variable(write: Write, pattern: str) -> None:
    """With the backslash that it needs to find a dollar; without one it could match nothing."""
    text = "output_dir: x\ntasks: [{name: a, train: a.jsonl, check: {matches: ['%s']}}]\n"
    (task,) = load_experiment(write(text % pattern)).tasks or ()
    assert task.check is not None and task.check.matches == (pattern,)
    with pytest.raises(ConfigError, match=r":2:\d+: found \$\{NAME\}, expected the value itself"):
        load_experiment(write(text % "${NAME}"))


def test_a_byte_order_mark_is_accepted(write: Write) -> None:
    assert load_experiment(write(b"\xef\xbb\xbf" + SMALL.encode())).suite == "support-desk"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a" * 65, "a b"])
def test_a_task_name_that_is_no_folder_name_is_refused(write: Write, name: str) -> None:
    path = write(f"output_dir: out\ntasks:\n  - name: '{name}'\n    train: a.jsonl\n")
    rule = "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"
    assert parts(error_of(path)) == [(str(path), 3, "tasks[0].name", repr(name), rule)]


def test_two_tasks_of_one_name_or_one_file_are_refused(write: Write, tmp_path: Path) -> None:
    path = write(
        "output_dir: out\ntasks:\n- {name: a, train: a.jsonl}\n- {name: b, train: ./a.jsonl}\n- {name: a, train: b}\n"
    )
    assert parts(error_of(path)) == [
        (str(path), 4, "tasks[1].train", repr(str(tmp_path / "a.jsonl")), "another train than that of tasks[0]"),
        (str(path), 5, "tasks[2].name", "'a'", "another name than that of tasks[0]"),
    ]


def test_mistakes_in_a_task_and_its_check_are_named(write: Write) -> None:
    path = write(
        "output_dir: out\ntasks:\n  - name: a\n    trian: a.jsonl\n    max_train: 0\n    check: {lacks: ['(']}\n"
    )
    *others, pattern = sorted(parts(error_of(path)))
    assert others == [
        (str(path), 3, "tasks[0].train", "nothing", "a value; it has no default"),
        (str(path), 4, "tasks[0].trian", "an unknown key", "train"),
        (str(path), 5, "tasks[0].max_train", "0", "a number of at least 1"),
    ]
    assert pattern[:4] == (str(path), 6, "tasks[0].check.lacks", "the pattern '('")
    assert str(pattern[4]).startswith("a regular expression: ")  # and what Python's re says of it


def test_an_option_of_the_suite_needs_the_suite(write: Write) -> None:
    path = write(TASKS + "suite_pairs: 3\nsuite_test_pairs: 4\nsuite_held_out: dev\n")
    error = error_of(path)
    either, dev = "add suite: support-desk or suite: paper", "a suite with a dev split; add suite: support-desk"
    assert parts(error) == [
        (str(path), 4, "suite_pairs", None, f"a suite; {either}"),
        (str(path), 5, "suite_test_pairs", None, f"a suite; {either}"),
        (str(path), 6, "suite_held_out", None, dev),
    ]
    assert str(error).splitlines()[0] == f"{path}:4: suite_pairs: needs a suite; {either}"
    paper = write("output_dir: out\nsuite: paper\nsuite_held_out: dev\n")
    assert parts(error_of(paper)) == [(str(paper), 3, "suite_held_out", None, dev)]


def test_a_folder_in_place_of_the_hub_needs_data_from_the_hub(write: Write) -> None:
    expected = "data from the hub, which it replaces; add suite: paper, or tasks whose files begin with hub:"
    path = write(TASKS + "data_dir: here\n")
    assert parts(error_of(path)) == [(str(path), 4, "data_dir", None, expected)]


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
    ("override", "fault"),
    [
        ("preference.betta=1", (None, "preference.betta", "an unknown key", "beta")),
        ("preference.beta=-1", (None, "preference.beta", "-1", "a number greater than 0")),
        ("prefrence.beta=1", (None, "prefrence", "an unknown key", "preference")),
        ("seed.x=1", (None, None, "a number (1) at seed", "a section")),
        ("seed", (None, None, "no key and value", "KEY=VALUE as in preference.beta=0.2")),
        ("a..b=1", (None, None, "no key and value", "KEY=VALUE as in preference.beta=0.2")),
        ("seed={a: 1, a: 2}", (None, None, "the key seed.a again", "it once")),
        ("seed=!x 1", (None, None, "the tag !x", "plain values")),
    ],
)
def test_a_mistake_in_an_override_names_the_override(write: Write, override: str, fault: Fault) -> None:
    error = error_of(write(SMALL + "seed: 1\n"), override)
    assert parts(error) == [(f"--set {override}", *fault)]
    assert str(error).startswith(f"--set {override}: ")


def test_an_override_that_is_no_yaml_is_refused(write: Write) -> None:
    error = error_of(write(SMALL), "seed=[")
    assert str(error) == "--set seed=[: expected the node content, but found '<stream end>'"
    assert parts(error) == [("--set seed=[", None, None, None, None)]


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
    with pytest.raises(ConfigError) as caught:
        build_config(LifeConfig, {"preference": {"beta": -1}})
    assert parts(caught.value) == [("settings", None, "preference.beta", "-1", "a number greater than 0")]
    assert str(caught.value) == "settings: preference.beta: found -1, expected a number greater than 0"


def test_the_parts_of_a_mistake_are_not_read_from_its_words(write: Write) -> None:
    """A value may itself hold the words that join the parts."""
    path = write("output_dir: out\ntasks:\n- {name: 'a, expected b', train: a.jsonl}\n")
    assert [(fault.found, fault.field) for fault in error_of(path).faults] == [("'a, expected b'", "tasks[0].name")]


def test_an_error_travels_between_processes_with_its_faults(write: Write) -> None:
    error = error_of(write(SMALL + "seed: -1\n"))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.faults) == (str(error), error.faults)


KEYS = st.sampled_from([*ExperimentConfig.model_fields, *PreferenceConfig.model_fields, "name", "train", "check", "x"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@given(st.dictionaries(KEYS, VALUES).map(yaml.safe_dump) | st.text())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_file_holds_only_our_own_error_leaves(write: Write, text: str) -> None:
    with suppress(ConfigError):
        load_experiment(write(text.encode(errors="replace")), ["preference.beta=0.2"])


@pytest.mark.parametrize("place", ["~0", "~no-such-user/rows"])
def test_the_home_of_a_user_who_does_not_exist_is_a_path_like_any_other(write: Write, place: str) -> None:
    experiment = load_experiment(write(f"suite: paper\noutput_dir: x\ndata_dir: {place}\n".encode()), [])
    assert str(experiment.data_dir).endswith(place)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LifeConfig().preference.beta = 1  # type: ignore[misc]
