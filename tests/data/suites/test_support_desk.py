"""The support-desk suite: its exact checks, and that each task teaches its own rule and nothing else."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest
from experiments.support_desk import generate

from lifealign.data.pair import Pair
from lifealign.data.suites.support_desk import PAIRS, RULES, load_suite
from lifealign.data.task import Task

CHECKS = {rule.name: rule.check for rule in RULES}
NAMES = list(CHECKS)
ALL_FOUR = "Hi, thanks for writing! What is your order number? I'll pass this on to our billing team."

KEEPS = {
    "brief": [
        "Sure.",
        "We'll refund you.",
        " ".join(["word"] * 25),
        "What is your order number?",
        "Sorry about the kettle.\n\nI'll pass this on.",
        "  spaces   do    not     count   ",
        "Please reply with your order number so that I can help you with your late parcel.",
        "Thank you!",
    ],
    "greet": [
        "Hi, thanks for writing!",
        "Hello! Sorry about that. Thank you for telling us.",
        "Dear customer, we thank you for your message.",
        "Good morning, and thank you.",
        "  good evening, THANKS!",
        "**Hi there**, thanks for reaching out.",
        "Hey, thank you so much for the photo.",
        "Good afternoon. Your parcel is late, and I'm sorry. Thanks for your patience.",
    ],
    "order-number": [
        "What is your order number?",
        "What's your order number, please?",
        "Could you send me the order number first?",
        "Please reply with your order number.",
        "I need the order number before I can do anything.",
        "Sorry about that. And your order number?",
        "Your order number, please.",
        "I don't have your order number yet; could you send it to me?",
        "Let me know the order  number and I'll refund you.",
        "May I have your Order ID?",
    ],
    "escalate": [
        "I'll pass this on to our billing team.",
        "I cannot promise a refund, but I'll pass this to our team.",
        "I can't refund you myself; let me hand this over to a specialist.",
        "I'm forwarding your message to a colleague.",
        "We will escalate this.",
        "I'll forward your refund request to our billing team.",
        "I'll send this refund question to a colleague.",
        "I\u2019ll ask a colleague in billing whether a refund is possible.",
        "Let me put you through to the returns department.",
        "I'm passing your case to the spare parts team, who decide about refunds.",
        "We don't promise refunds, so I'm handing it over.",
        "I'll ask our billing team if a refund is due, and get back to you.",
    ],
}
BREAKS = {
    "brief": [
        "",
        "   ",
        " ".join(["word"] * 26),
        "word\n" * 30,
        ALL_FOUR + " " + ALL_FOUR,
        "word " * 1000,
        " - ".join(["word"] * 14),
        "Sorry about the kettle. " * 7,
    ],
    "greet": [
        "",
        "Hi there!",
        "Thanks for writing!",
        "Thank you. Hi!",
        "Sorry about that. Hello, thanks.",
        "Hi, thankfully we found it.",
        "His parcel arrived, thanks.",
        "Good grief, thanks!",
        "What is your order number? Thanks.",
        "Hello, your parcel is late.",
    ],
    "order-number": [
        "",
        "I've found your order.",
        "I have your order number already.",
        "Your order number is 1234.",
        "I don't need your order number.",
        "There's no need to send the order number.",
        "What is your order?",
        "Could you tell me your phone number?",
        "What a number of orders!",
        "Please wait. The order number is in your email.",
    ],
    "escalate": [
        "",
        "We'll refund you and pass this on.",
        "I will refund you.",
        "I'll pass this on, and you will get your money back.",
        "A refund is on its way. I'm forwarding this to billing.",
        "I've issued a refund and handed it over to our team.",
        "I\u2019ve already issued a full refund and will pass this on.",
        "You'll be fully refunded; I'll forward this to a colleague.",
        "Let me refund you first, then I'll pass this on.",
        "I promise you a refund. I'll escalate this.",
        "We have credited your card and will pass this on.",
        "I'll pass this on, so your money will be back by Monday.",
        "I'm happy to refund you, and I'll forward this.",
        "I'll send a replacement today.",
        "I can't promise a refund.",
        "I look forward to hearing from you.",
        "I won't pass this on.",
        "The van passed your house on Monday.",
    ],
}


@pytest.fixture(scope="module")
def splits() -> dict[tuple[str, str], tuple[Pair, ...]]:
    """Pairs by rule and split."""
    out = {(task.name, "train"): task.train for task in load_suite()}
    out |= {(task.name, "test"): task.test for task in load_suite()}
    return out | {(task.name, "dev"): task.test for task in load_suite(held_out="dev")}


@pytest.mark.parametrize(("name", "answer"), [(name, answer) for name in NAMES for answer in KEEPS[name]])
def test_answers_that_keep_a_rule(name: str, answer: str) -> None:
    assert CHECKS[name].holds(answer)


@pytest.mark.parametrize(("name", "answer"), [(name, answer) for name in NAMES for answer in BREAKS[name]])
def test_answers_that_break_a_rule(name: str, answer: str) -> None:
    assert not CHECKS[name].holds(answer)


def test_one_answer_can_keep_all_four_rules() -> None:
    assert all(check.holds(ALL_FOUR) for check in CHECKS.values())


def test_the_suite_has_four_tasks_in_order_with_their_checks() -> None:
    suite = load_suite()
    assert [task.name for task in suite] == ["brief", "greet", "order-number", "escalate"]
    assert [(len(task.train), len(task.test)) for task in suite] == [(160, 48)] * 4
    assert [task.check for task in suite] == [rule.check for rule in RULES]
    assert suite[0].train[0].prompt[-1].role == "user"
    assert suite[0].train[1].source == "support_desk/brief/train.jsonl:2"


def test_a_smaller_suite_is_the_beginning_of_the_whole_one() -> None:
    whole, small = load_suite(), load_suite(12, test_pairs=5)
    assert [task.train for task in small] == [task.train[:12] for task in whole]
    assert [task.test for task in small] == [task.test[:5] for task in whole]
    assert load_suite(1, test_pairs=0)[0].test == ()


@pytest.mark.parametrize("number", [0, -1, 161])
def test_a_suite_of_an_impossible_size_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"pairs_per_task: found {number}, expected 1 to 160"):
        load_suite(number)
    with pytest.raises(ValueError, match="test_pairs: found 49, expected 0 to 48"):
        load_suite(test_pairs=49)


def test_the_committed_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    assert generate.main([str(tmp_path)]) == 0
    root = files("lifealign.data.suites").joinpath("support_desk")
    for name, split in product(NAMES, PAIRS):
        written = (tmp_path / name / f"{split}.jsonl").read_bytes()
        assert written == root.joinpath(name, f"{split}.jsonl").read_bytes()
        rows = [json.loads(line) for line in written.decode().splitlines()]
        assert all(list(row) == ["prompt", "chosen", "rejected"] for row in rows)


def test_the_generator_says_how_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        generate.main([])
    assert "OUT_DIR" in capsys.readouterr().err


def test_chosen_keeps_the_rule_and_rejected_breaks_it(splits: dict[tuple[str, str], tuple[Pair, ...]]) -> None:
    for (name, _), pairs in splits.items():
        assert all(CHECKS[name].holds(pair.chosen) and not CHECKS[name].holds(pair.rejected) for pair in pairs)


def test_the_other_rules_are_kept_as_often_on_both_sides(splits: dict[tuple[str, str], tuple[Pair, ...]]) -> None:
    for (name, _), pairs in splits.items():
        for other in set(NAMES) - {name}:
            chosen = sum(CHECKS[other].holds(pair.chosen) for pair in pairs) / len(pairs)
            rejected = sum(CHECKS[other].holds(pair.rejected) for pair in pairs) / len(pairs)
            assert chosen == pytest.approx(generate.SHARE, abs=0.02)
            assert rejected == pytest.approx(generate.SHARE, abs=0.02)


def test_length_tells_nothing_but_in_brief(splits: dict[tuple[str, str], tuple[Pair, ...]]) -> None:
    for (name, split), pairs in splits.items():
        chosen = [len(pair.chosen.split()) for pair in pairs]
        rejected = [len(pair.rejected.split()) for pair in pairs]
        longer = sum((a > b) + 0.5 * (a == b) for a, b in zip(chosen, rejected, strict=True)) / len(pairs)
        above = [
            (sum(a > limit for a in chosen) + sum(b <= limit for b in rejected)) / (2 * len(pairs))
            for limit in range(70)
        ]
        best = max(longer, 1 - longer, *above, *(1 - share for share in above))
        assert best == 1.0 if name == "brief" else best < 0.62, (name, split)


def test_no_answer_and_no_pair_twice(splits: dict[tuple[str, str], tuple[Pair, ...]]) -> None:
    answers = [answer for pairs in splits.values() for pair in pairs for answer in (pair.chosen, pair.rejected)]
    assert len(set(answers)) == len(answers) == 4 * 2 * (160 + 48 + 48)
    for pairs in splits.values():
        assert len({pair.prompt for pair in pairs}) == len(pairs)


def test_answers_read_like_sentences(splits: dict[tuple[str, str], tuple[Pair, ...]]) -> None:
    for pairs in splits.values():
        for answer in (answer for pair in pairs for answer in (pair.chosen, pair.rejected)):
            assert answer[0].isupper()
            assert answer[-1] in ".!?"
            assert not any(fault in answer for fault in ("{", "  ", " a a", " a e", " a i", " a o", "..", "?."))
            sentences = answer.replace("!", ".").replace("?", ".").split(". ")
            assert len(set(sentences)) == len(sentences)


def _messages(tasks: list[Task]) -> list[tuple[str, ...]]:
    return [tuple(pair.prompt[-1].content for pair in task.test) for task in tasks]


def test_all_tasks_hold_out_the_same_customers() -> None:
    test, dev = _messages(load_suite()), _messages(load_suite(held_out="dev"))
    assert len(set(test)) == len(set(dev)) == 1
    assert len(set(test[0])) == len(set(dev[0])) == 48


def test_tasks_share_training_customers_in_different_orders(splits: dict[tuple[str, str], tuple[Pair, ...]]) -> None:
    seen = [[pair.prompt[-1].content for pair in splits[name, "train"]] for name in NAMES]
    assert len({message for messages in seen for message in messages}) <= generate.TRAIN_MESSAGES
    for first, second in product(seen, seen):
        if first is not second:
            assert first != second
            assert len(set(first) & set(second)) >= 2 * 160 - generate.TRAIN_MESSAGES


def test_held_out_customers_are_not_training_customers_in_other_words(
    splits: dict[tuple[str, str], tuple[Pair, ...]],
) -> None:
    """No held-out message shares half of its words, or a run of six, with one of another split."""
    bags = {
        split: {pair.prompt[-1].content for name in NAMES for pair in splits[name, split]}
        for split in ("train", "dev", "test")
    }

    def tokens(text: str) -> list[str]:
        return "".join(c.lower() if c.isalnum() or c == "'" else " " for c in text).split()

    def runs(text: str) -> set[tuple[str, ...]]:
        words = tokens(text)
        return {tuple(words[i : i + 6]) for i in range(len(words) - 5)}

    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for a, b in product(bags[first], bags[second]):
            one, two = set(tokens(a)), set(tokens(b))
            assert len(one & two) / len(one | two) < 0.5, (a, b)
            assert not runs(a) & runs(b), (a, b)


def test_customers_write_8_to_35_words_and_many_want_money(splits: dict[tuple[str, str], tuple[Pair, ...]]) -> None:
    for pairs in splits.values():
        messages = [pair.prompt[-1].content for pair in pairs]
        assert all(8 <= len(message.split()) <= 35 for message in messages)
        assert 0.3 <= sum(map(generate.asks_money, messages)) / len(messages) <= 0.6
