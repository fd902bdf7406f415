"""How often do keys name the task that a real prompt belongs to? Against two ways to compare texts, and with unknowns.

    python -m experiments.recall_accuracy DATA [--domains] [--prompts 200] [--test 80]

DATA has a folder for each task with ``train.jsonl`` and ``test.jsonl``. A key is made of 200 training prompts (three
quarters for the mean, the rest to calibrate); nothing is fitted to other tasks, and nothing to the test prompts. The
others are TF-IDF, which knows the words of all tasks at once, and the sentence embedder WordLlama (16 million numbers,
``pip install wordllama``), which is left out where it is not installed. With ``--domains``, the prompts of up to three
turns of all folders make the twelve tasks of :mod:`experiments.domains`.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from experiments.domains import Prompt, domains
from torch import Tensor
from torch.nn.functional import normalize

from lifealign.data.clean import read_clean
from lifealign.life.keys import whitening_of
from lifealign.life.life import Life
from lifealign.memory.recall import Key, learn_key, separation
from lifealign.memory.scope import scope
from lifealign.model.features import prompt_features
from lifealign.model.tokens import prompt_ids

Prompts = dict[str, list[Prompt]]
Ids = Callable[[Prompt], tuple[int, ...]]
SEED, ALPHA, LONGEST = 0, 0.05, 512


def main(arguments: Sequence[str]) -> None:
    """Measures and prints Markdown."""
    parser = argparse.ArgumentParser(prog="python -m experiments.recall_accuracy")
    parser.add_argument("data", type=Path)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--test", type=int, default=80)
    parser.add_argument("--domains", action="store_true")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        work = Life.create(Path(folder) / "life", model="smollm2-135m", retention="off").workspace
        whitening, tokenizer = whitening_of(work), work.runtime.tokenizer

        def ids(prompt: Prompt) -> tuple[int, ...]:
            return tuple(prompt_ids(tokenizer, prompt))

        train, test = (of_domains if given.domains else of_folders)(given.data, given.prompts, given.test, ids)
        names = list(train)
        features = {
            (name, split): whitening(prompt_features(work.runtime, [ids(prompt) for prompt in prompts[name]]))
            for split, prompts in (("train", train), ("test", test))
            for name in names
        }
    keys = {name: learn_key(_of(features, name)[1], _of(features, name)[0]) for name in names}
    shown = {"key": {name: _best(keys, features[name, "test"]) for name in names}, "TF-IDF": _tf_idf(train, test)}
    if find_spec("wordllama") is not None:
        shown["WordLlama"] = _embedded(train, test)
    ways = " | ".join(list(shown)[1:])
    print(f"| task | prompts | tested | named right, key | {ways} | called unlike it | unknown if not learnt | scope |")
    print("|" + "---|" * (6 + len(shown)))
    for name in names:
        found = features[name, "test"]
        right = [sum(guess == name for guess in of[name]) / len(of[name]) for of in shown.values()]
        unlike = float((keys[name].p_values(found) <= ALPHA).double().mean())
        rest = torch.stack([key.p_values(found) for other, key in keys.items() if other != name])
        unknown = float((rest.amax(dim=0) <= ALPHA).double().mean())
        others = torch.cat([_of(features, other)[0] for other in names if other != name])
        wide = scope(separation(keys[name].scores(_of(features, name)[0]), keys[name].scores(others)))
        shares = [f"{100 * share:.0f} %" for share in (*right, unlike, unknown)]
        print(f"| {name} | {len(train[name])} | {len(found)} | {' | '.join(shares)} | {wide:.2f} |")
    for label, of in shown.items():
        mean = sum(sum(guess == name for guess in of[name]) / len(of[name]) for name in names) / len(names)
        print(f"\n{label}: {100 * mean:.1f} % in the mean over tasks")


def of_folders(data: Path, prompts: int, test: int, ids: Ids) -> tuple[Prompts, Prompts]:
    """Training and test prompts of a task for each folder; no test prompt is a training prompt."""
    names = sorted(folder.name for folder in data.iterdir() if (folder / "train.jsonl").is_file())
    train = {name: _drawn(_read(data / name / "train.jsonl"), prompts, ids) for name in names}
    return train, {
        name: _drawn((one for one in _read(data / name / "test.jsonl") if one not in set(train[name])), test, ids)
        for name in names
    }


def of_domains(data: Path, prompts: int, test: int, ids: Ids) -> tuple[Prompts, Prompts]:
    """Training and test prompts of the twelve domains, from all folders together."""
    every = dict.fromkeys(prompt for path in sorted(data.glob("*/t*.jsonl")) for prompt in _read(path))
    made = domains(prompt for prompt in every if len(prompt) <= 3)
    train = {name: _drawn(both[0], prompts, ids) for name, both in made.items()}
    return train, {name: _drawn(both[1], test, ids) for name, both in made.items()}


def _read(path: Path) -> dict[Prompt, None]:
    """The distinct prompts of a file, in its order."""
    return dict.fromkeys(pair.prompt for pair in read_clean(path).pairs)


def _drawn(prompts: Iterable[Prompt], number: int, ids: Ids) -> list[Prompt]:
    """So many of the prompts that fit, at random."""
    shuffled = list(prompts)
    random.Random(SEED).shuffle(shuffled)
    return [prompt for prompt in shuffled[: 2 * number] if len(ids(prompt)) <= LONGEST][:number]


def _of(features: dict[tuple[str, str], Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Features of the prompts that calibrate a task's key, and of those that its mean is made of."""
    found = features[name, "train"]
    return found[: len(found) // 4], found[len(found) // 4 :]


def _best(keys: dict[str, Key], found: Tensor) -> list[str]:
    names = list(keys)
    return [names[place] for place in torch.stack([key.scores(found) for key in keys.values()]).argmax(dim=0).tolist()]


def _tf_idf(train: Prompts, test: Prompts) -> dict[str, list[str]]:
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

    def vectors(prompts: list[Prompt]) -> Tensor:
        return torch.stack([vector(_words(prompt)) for prompt in prompts])

    return _nearest(train, test, vectors)


def _embedded(train: Prompts, test: Prompts) -> dict[str, list[str]]:
    """The task whose mean embedding is nearest by cosine, with a sentence embedder that comes in a package."""
    import wordllama  # type: ignore[import-not-found]

    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)

    def vectors(prompts: list[Prompt]) -> Tensor:
        texts = ["\n".join(message.content for message in prompt) for prompt in prompts]
        return torch.as_tensor(model.embed(texts, norm=True), dtype=torch.float64)

    return _nearest(train, test, vectors)


def _nearest(train: Prompts, test: Prompts, vectors: Callable[[list[Prompt]], Tensor]) -> dict[str, list[str]]:
    """The task of each test prompt whose mean of unit vectors is nearest by cosine."""
    centers = normalize(torch.stack([vectors(prompts).mean(dim=0) for prompts in train.values()]))
    names = list(train)
    return {
        name: [names[place] for place in (vectors(prompts) @ centers.T).argmax(dim=1).tolist()]
        for name, prompts in test.items()
    }


def _words(prompt: Prompt) -> list[str]:
    return re.findall(r"[a-z']+", " ".join(message.content for message in prompt).lower())


if __name__ == "__main__":
    main(sys.argv[1:])
