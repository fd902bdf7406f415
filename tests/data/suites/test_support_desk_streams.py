"""Longer streams of the support desk: further rules, shares of traits, balanced prefixes, held-out phrases, updates."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from experiments.support_desk import generate
from experiments.support_desk.compose import say_we
from experiments.support_desk.generate import Options
from experiments.support_desk.held_out_pieces import HELD_OUT
from experiments.support_desk.more_pieces import TRAINED, Wordings
from experiments.support_desk.rules import ALL_RULES, MORE_RULES, UPDATES

from lifealign.data.answer_check import AnswerCheck
from lifealign.data.suites.support_desk import PAIRS, RULES
from lifealign.experiments.settings import load_experiment
from lifealign.experiments.tasks import load_tasks

CHECKS = {name: rule.check for name, rule in ALL_RULES.items()}
ELEVEN = tuple(name for name in ALL_RULES if name not in ("brief", *UPDATES))
EIGHT = ("greet", "order-number", "escalate", "sign-off", "no-sorry", "two-days", "we", "question")
SHORT = ("brief", "greet", "order-number", "escalate", "no-exclamation")
ALL_ELEVEN = (
    "Hello, thanks for writing. What is your order number? We'll pass this on to our billing team. You'll hear from us "
    "within two working days. Your case reference is C-20431. Our help page has more. Is that okay? Kind regards, Dana"
)

KEEPS = {
    "sign-off": [
        "Done. Kind regards, Dana",
        "Is that okay? Best wishes, Robin from the support desk",
        "Done.\n\nBest regards,\nAlex Reed",
        "Done. Sincerely, Sam.",
        "Done! Thanks, Priya",
        "With kind regards, Tom",
    ],
    "no-sorry": ["We can do better.", "That is annoying.", "Sorrel soup is on its way."],
    "two-days": ["Expect news within two working days.", "Within 2 working days, it's done."],
    "we": ["We are on it.", "Done, and we'll call you.", "WE know."],
    "question": ["Done. Is that okay?", "Is that okay? Kind regards, Dana", 'Did you say "no"?', "Okay?\nBest,\nTom"],
    "case-reference": ["Your case reference is C-20431.", "(C-00001)"],
    "help-page": ["See our help page.", "The Help Pages say so.", "our help-page"],
    "no-exclamation": ["Thanks.", "Is that okay?"],
    "briefer": [" ".join(["word"] * 15), "Sure."],
    "email": [
        "What is your e-mail address?",
        "Could you send us the email address first?",
        "Your e-mail address, please.",
        "I need your email address.",
        "And your e-mail address?",
        "What's your email?",
    ],
}
BREAKS = {
    "sign-off": [
        "",
        "Kind regards",
        "Done. Kind regards, Your Support Team",
        "Kind regards, [Your Name]",
        "Kind regards, Dana. Is that okay?",
        "I am Dana",
        "Done, Dana",
    ],
    "no-sorry": ["Sorry!", "I apologise.", "Our apologies.", "Please accept an apology.", "It is regrettable."],
    "two-days": ["Within two days.", "In two working days.", "Within three working days.", "Within two or three days."],
    "we": [
        "",
        "I am on it.",
        "We know, and I'll call.",
        "We have my word.",
        "We did it; ask me.",
        "It is done.",
        "Us.",
    ],
    "question": [
        "",
        "Okay? Yes.",
        "What is your order number? I'll pass it on.",
        "Kind regards, Dana",
        "Okay? Dear Tom.",
    ],
    "case-reference": ["Your case reference is 20431.", "C-2043", "C-204311", "ABC-20431", "C 20431"],
    "help-page": ["See our page.", "We help. Page 3 shows it.", "There is no help page."],
    "no-exclamation": ["Thanks!", "Hi! How are you?"],
    "briefer": ["", " ".join(["word"] * 16)],
    "email": [
        "What is your order number?",
        "Could you send your order number and your e-mail address?",
        "You will be kept up to date by email.",
        "I was able to trace it by your email.",
        "We don't need your e-mail address.",
        "I'll email you a new label.",
    ],
}
KEPT_BY = {
    "greetings": "greet",
    "short_greetings": "greet",
    "order_requests": "order-number",
    "handovers": "escalate",
    "money_handovers": "escalate",
    "short_handovers": "escalate",
    "sign_offs": "sign-off",
    "two_days": "two-days",
    "questions": "question",
    "references": "case-reference",
    "help_pages": "help-page",
    "email_requests": "email",
    "sympathies": "no-sorry",
    "together": "we",
}
BROKEN_BY = {"sorries": "no-sorry", "alone": "we", "exclamations": "no-exclamation"}
FREE = {
    "brief",
    "briefer",
    "we",
    "no-sorry",
    "no-exclamation",
    "question",
}  # a phrase may keep or break these by the way

Rows = list[dict[str, str]]


def _phrases(wordings: Wordings) -> dict[str, list[str]]:
    fills = {"team": "billing", "name": "Dana", "reference": "20431"}
    return {field: [text.format(**fills) for text in texts] for field, texts in asdict(wordings).items()}


def _rows(files: dict[str, str]) -> dict[tuple[str, str], Rows]:
    return {
        (name.split("/")[0], name.split("/")[1].removesuffix(".jsonl")): [
            json.loads(line) for line in text.splitlines()
        ]
        for name, text in files.items()
    }


def _kept(rows: Rows, side: str, name: str) -> list[bool]:
    return [CHECKS[name].holds(row[side]) for row in rows]


@pytest.mark.parametrize(("name", "answer"), [(name, answer) for name in KEEPS for answer in KEEPS[name]])
def test_answers_that_keep_a_rule(name: str, answer: str) -> None:
    assert CHECKS[name].holds(answer)


@pytest.mark.parametrize(("name", "answer"), [(name, answer) for name in BREAKS for answer in BREAKS[name]])
def test_answers_that_break_a_rule(name: str, answer: str) -> None:
    assert not CHECKS[name].holds(answer)


def test_every_further_rule_has_examples_and_the_package_keeps_its_four() -> None:
    assert list(KEEPS) == list(BREAKS) == [rule.name for rule in MORE_RULES]
    assert list(ALL_RULES)[:4] == [rule.name for rule in RULES] == ["brief", "greet", "order-number", "escalate"]


def test_one_answer_can_keep_all_eleven_rules() -> None:
    assert len(ELEVEN) == 11
    assert all(CHECKS[name].holds(ALL_ELEVEN) for name in ELEVEN)


@pytest.mark.parametrize("wordings", [TRAINED, HELD_OUT])
def test_a_phrase_keeps_or_breaks_its_own_rule_and_says_nothing_about_others(wordings: Wordings) -> None:
    phrases = _phrases(wordings)
    assert set(phrases) == {*KEPT_BY, *BROKEN_BY, "names"}
    for field, texts in phrases.items():
        assert len(set(texts)) == len(texts) >= (4 if field == "money_handovers" else 12)
        for text in texts:
            assert field not in KEPT_BY or CHECKS[KEPT_BY[field]].holds(text), text
            assert field not in BROKEN_BY or not CHECKS[BROKEN_BY[field]].holds(text), text
            kept = {name for name in CHECKS if name not in FREE and CHECKS[name].holds(text)}
            assert kept <= {KEPT_BY.get(field)}, text


def test_the_two_sets_of_phrases_have_none_in_common() -> None:
    first, second = _phrases(TRAINED), _phrases(HELD_OUT)
    assert not {text for texts in first.values() for text in texts} & {
        text for texts in second.values() for text in texts
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("I'll see to it myself.", "We'll see to it ourselves."),
        ("Done. I'm sure, and I was right.", "Done. We're sure, and we were right."),
        ("Let me pass my note on? I am sure.", "Let us pass our note on? We are sure."),
        ("Refunds are not mine to decide, so I'll ask.", "Refunds are not ours to decide, so we'll ask."),
        ("It is me. My word!", "It is us. Our word!"),
    ],
)
def test_i_becomes_we(said: str, expected: str) -> None:
    assert say_we(said) == expected


@pytest.mark.parametrize(
    ("rules", "share", "balanced", "phrasing"),
    [
        (ELEVEN, 0.4, False, "trained"),
        (EIGHT, 0.9, True, "held-out"),
        (SHORT, 0.2, True, "held-out"),
        (SHORT, 0, False, "trained"),
        (("sign-off", "no-sorry"), 0.6, True, "trained"),
    ],
)
def test_chosen_keeps_the_rule_and_the_others_have_their_share_on_both_sides(
    rules: tuple[str, ...], share: float, balanced: bool, phrasing: str
) -> None:
    options = Options(rules, share, pairs=40, balanced=balanced, phrasing=phrasing)  # type: ignore[arg-type]
    written = _rows(generate.generate(options))
    assert list(written) == list(product(rules, PAIRS))
    for (task, split), rows in written.items():
        assert len(rows) == (40 if split == "train" else 48)
        assert all(_kept(rows, "chosen", task)) and not any(_kept(rows, "rejected", task))
        for other, side in product(set(rules) - {task}, ("chosen", "rejected")):
            assert sum(_kept(rows, side, other)) == pytest.approx(share * len(rows), abs=1)
    answers = [row[side] for rows in written.values() for row in rows for side in ("chosen", "rejected")]
    assert len(set(answers)) == len(answers)
    assert all(
        "{" not in answer and "  " not in answer and "'m " not in answer.replace("I'm ", "") for answer in answers
    )


@pytest.mark.parametrize("balanced", [False, True])
def test_with_a_chosen_share_of_one_every_chosen_answer_keeps_all_rules(balanced: bool) -> None:
    options = Options(EIGHT, chosen_share=1, pairs=16, balanced=balanced)
    for (task, _), rows in _rows(generate.generate(options)).items():
        assert all(all(_kept(rows, "chosen", name)) for name in EIGHT)
        for other in set(EIGHT) - {task}:
            assert sum(_kept(rows, "rejected", other)) == pytest.approx(0.4 * len(rows), abs=1)


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_every_prefix_of_a_balanced_stream_has_the_shares(share: float) -> None:
    for (task, _), rows in _rows(generate.generate(Options(EIGHT, share, pairs=40, balanced=True))).items():
        for other, side in product(set(EIGHT) - {task}, ("chosen", "rejected")):
            kept = _kept(rows, side, other)
            assert all(abs(sum(kept[:end]) - share * end) <= 1 for end in range(len(kept) + 1))


def test_in_a_balanced_prefix_of_16_no_two_traits_go_together() -> None:
    rows = _rows(generate.generate(Options(SHORT, pairs=16, balanced=True)))["greet", "train"]
    kept = [_kept(rows, side, name) for side, name in product(("chosen", "rejected"), set(SHORT) - {"greet"})]
    for number, one in enumerate(kept):
        for other in kept[:number]:
            assert abs(sum(a and b for a, b in zip(one, other, strict=True)) - 0.4 * 0.4 * 16) < 2


def test_length_tells_nothing_in_a_balanced_prefix() -> None:
    for (_, split), rows in _rows(generate.generate(Options(EIGHT, pairs=40, balanced=True))).items():
        first = rows[:16] if split == "train" else rows
        lengths = {side: sum(len(row[side].split()) for row in first) / len(first) for side in ("chosen", "rejected")}
        assert lengths["chosen"] == pytest.approx(lengths["rejected"], abs=2.5)


def test_all_eleven_rules_hold_in_a_generated_answer() -> None:
    rows = _rows(generate.generate(Options(ELEVEN, 0.9, pairs=20)))["greet", "train"]
    assert any(all(CHECKS[name].holds(row["chosen"]) for name in ELEVEN) for row in rows)


def test_held_out_phrasing_changes_training_alone() -> None:
    options = Options(EIGHT, pairs=16)
    first, second = (generate.generate(replace(options, phrasing=phrasing)) for phrasing in ("trained", "held-out"))  # type: ignore[arg-type]
    shown, held_out = (
        [text for field in (*KEPT_BY, *BROKEN_BY) if field not in ("names", "sympathies") for text in phrases[field]]
        for phrases in (_phrases(TRAINED), _phrases(HELD_OUT))
    )
    long = [text for text in shown if "C-" not in text and len(text.split()) > 3 and text not in " ".join(held_out)]
    for name in first:
        if name.endswith("train.jsonl"):
            assert [json.loads(line)["prompt"] for line in first[name].splitlines()] == [
                json.loads(line)["prompt"] for line in second[name].splitlines()
            ]
            assert any(text in first[name] for text in long)
            assert not any(text in second[name] for text in long)
        else:
            assert first[name] == second[name]


def test_an_update_takes_the_place_of_its_rule() -> None:
    rules = ("brief", "order-number", "greet", "briefer", "email", "escalate")
    written = _rows(generate.generate(Options(rules, pairs=40, balanced=True)))
    for (task, _), rows in written.items():
        now = rules.index(task)
        for new, old in UPDATES.items():
            if rules.index(new) > now:
                assert not any(_kept(rows, "chosen", new) + _kept(rows, "rejected", new))
            elif new == task:
                assert sum(_kept(rows, "rejected", old)) == pytest.approx(len(rows) / 2, abs=1)
            else:
                assert sum(_kept(rows, "chosen", new)) == pytest.approx(0.4 * len(rows), abs=1)
        if now >= rules.index("email"):
            assert not any(_kept(rows, "chosen", "order-number"))
        if now > rules.index("briefer"):
            assert _kept(rows, "chosen", "brief") == _kept(rows, "chosen", "briefer")
    assert all(_kept(written["briefer", "test"], "chosen", "brief"))


def test_the_stream_is_the_tasks_of_an_experiment(tmp_path: Path) -> None:
    assert generate.main([str(tmp_path), "--rules", "we", "greet", "sign-off", "--pairs", "8", "--share", "0.2"]) == 0
    for split, file in (("test", "stream.yaml"), ("dev", "stream-dev.yaml")):
        tasks = load_tasks(load_experiment(tmp_path / file, ["output_dir=life"]))
        assert [task.name for task in tasks] == ["we", "greet", "sign-off"]
        assert [(len(task.train), len(task.test)) for task in tasks] == [(8, 48)] * 3
        assert [task.check for task in tasks] == [CHECKS[task.name] for task in tasks]
        assert (
            tasks[0].test[0].chosen
            == json.loads((tmp_path / f"we/{split}.jsonl").read_text().splitlines()[0])["chosen"]
        )


def test_only_an_update_after_its_rule_supersedes_it() -> None:
    tasks = yaml.safe_load(generate.stream(("brief", "greet", "briefer", "email"), "test"))["tasks"]
    assert [task.get("supersedes") for task in tasks] == [None, None, ["brief"], None]
    assert [AnswerCheck(**task["check"]) for task in tasks] == [CHECKS[task["name"]] for task in tasks]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--rules", "polite"], "found 'polite', expected any of brief, greet"),
        (["--rules", "greet", "greet"], "found 'greet' twice"),
        (["--rules", "briefer", "brief"], "found 'briefer' before 'brief'"),
        (["--rules", "brief", "sign-off", "help-page"], "found 'brief' with help-page"),
        (["--rules", "briefer", "sign-off"], "found 'briefer' with sign-off"),
        (["--share", "1"], "share: found 1.0, expected at least 0 and less than 1"),
        (["--chosen-share", "1.1"], "chosen_share: found 1.1, expected 0 to 1"),
        (["--pairs", "201"], "pairs: found 201, expected 1 to 200"),
    ],
)
def test_what_cannot_be_written_is_refused(
    arguments: list[str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([str(tmp_path), *arguments]) == 2
    assert fault in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
