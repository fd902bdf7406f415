"""How often do keys name the task that a real prompt belongs to? Against TF-IDF, and with unknown prompts.

    python -m experiments.recall_accuracy DATA [--prompts 200] [--test 80]

DATA has a folder for each task with ``train.jsonl`` and ``test.jsonl``. A key is made of 200 training prompts (three
quarters for the mean, the rest to calibrate); nothing is fitted to other tasks, and nothing to the test prompts.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lifealign.data.clean import read_clean
from lifealign.data.pair import Message
from lifealign.life.keys import whitening_of
from lifealign.life.life import Life
from lifealign.memory.recall import Key, learn_key, separation
from lifealign.memory.scope import scope
from lifealign.model.features import prompt_features
from lifealign.model.tokens import prompt_ids

Prompt = tuple[Message, ...]
SEED, ALPHA, LONGEST = 0, 0.05, 512


def main(arguments: Sequence[str]) -> None:
    """Measures and prints Markdown."""
    parser = argparse.ArgumentParser(prog="python -m experiments.recall_accuracy")
    parser.add_argument("data", type=Path)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--test", type=int, default=80)
    given = parser.parse_args(arguments)
    names = sorted(folder.name for folder in given.data.iterdir() if (folder / "train.jsonl").is_file())
    with tempfile.TemporaryDirectory() as folder:
        work = Life.create(Path(folder) / "life", model="smollm2-135m", retention="off").workspace
        whitening, tokenizer = whitening_of(work), work.runtime.tokenizer

        def ids(prompt: Prompt) -> tuple[int, ...]:
            return tuple(prompt_ids(tokenizer, prompt))

        train = {name: _prompts(given.data / name / "train.jsonl", given.prompts, ids) for name in names}
        test = {name: _prompts(given.data / name / "test.jsonl", given.test, ids, set(train[name])) for name in names}
        features = {
            (name, split): whitening(prompt_features(work.runtime, [ids(prompt) for prompt in prompts[name]]))
            for split, prompts in (("train", train), ("test", test))
            for name in names
        }
    keys = {name: learn_key(_of(features, name)[1], _of(features, name)[0]) for name in names}
    shown = {"key": {name: _best(keys, features[name, "test"]) for name in names}, "TF-IDF": _tf_idf(train, test)}
    print("| task | test prompts | named right, key | TF-IDF | called unlike it | unknown if not learnt | scope |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        found = features[name, "test"]
        right = [sum(guess == name for guess in of[name]) / len(of[name]) for of in shown.values()]
        unlike = float((keys[name].p_values(found) <= ALPHA).double().mean())
        rest = torch.stack([key.p_values(found) for other, key in keys.items() if other != name])
        unknown = float((rest.amax(dim=0) <= ALPHA).double().mean())
        others = torch.cat([_of(features, other)[0] for other in names if other != name])
        wide = scope(separation(keys[name].scores(_of(features, name)[0]), keys[name].scores(others)))
        shares = [f"{100 * share:.0f} %" for share in (*right, unlike, unknown)]
        print(f"| {name} | {len(found)} | {' | '.join(shares)} | {wide:.2f} |")
    for label, of in shown.items():
        mean = sum(sum(guess == name for guess in of[name]) / len(of[name]) for name in names) / len(names)
        print(f"\n{label}: {100 * mean:.1f} % in the mean over tasks")


def _prompts(
    path: Path, number: int, ids: Callable[[Prompt], tuple[int, ...]], known: Collection[Prompt] = ()
) -> list[Prompt]:
    """Distinct prompts that fit and are not known, in random order."""
    distinct = dict.fromkeys(pair.prompt for pair in read_clean(path).pairs)
    prompts = [prompt for prompt in distinct if prompt not in known]
    random.Random(SEED).shuffle(prompts)
    return [prompt for prompt in prompts[: 2 * number] if len(ids(prompt)) <= LONGEST][:number]


def _of(features: dict[tuple[str, str], Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Features of the prompts that calibrate a task's key, and of those that its mean is made of."""
    found = features[name, "train"]
    return found[: len(found) // 4], found[len(found) // 4 :]


def _best(keys: dict[str, Key], found: Tensor) -> list[str]:
    names = list(keys)
    return [names[place] for place in torch.stack([key.scores(found) for key in keys.values()]).argmax(dim=0).tolist()]


def _tf_idf(train: dict[str, list[Prompt]], test: dict[str, list[Prompt]]) -> dict[str, list[str]]:
    """The task whose mean TF-IDF vector is nearest by cosine; unlike a key, it knows the words of all tasks."""
    words = {name: [_words(prompt) for prompt in prompts] for name, prompts in train.items()}
    number = sum(map(len, words.values()))
    seen = Counter(word for prompts in words.values() for prompt in prompts for word in set(prompt))
    place = {word: index for index, word in enumerate(seen)}

    def vector(prompt: list[str]) -> Tensor:
        found = torch.zeros(len(place), dtype=torch.float64)
        for word, count in Counter(prompt).items():
            if word in place:
                found[place[word]] = (1 + math.log(count)) * math.log(number / seen[word])
        unit: Tensor = found / found.norm().clamp_min(1e-12)
        return unit

    centers = torch.stack([torch.stack([vector(prompt) for prompt in words[name]]).mean(dim=0) for name in train])
    centers = centers / centers.norm(dim=1, keepdim=True)
    names = list(train)
    return {
        name: [names[int((centers @ vector(_words(prompt))).argmax())] for prompt in prompts]
        for name, prompts in test.items()
    }


def _words(prompt: Prompt) -> list[str]:
    return re.findall(r"[a-z']+", " ".join(message.content for message in prompt).lower())


if __name__ == "__main__":
    main(sys.argv[1:])
