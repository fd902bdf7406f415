"""The loop of docs/serve.md with the embedded model: served, corrected 24 times, and taught that while it serves.

    python -m experiments.service_loop LIFE

LIFE has learnt `greet` and `brief` as in the README's quickstart. The corrections are the chosen answers of the first
24 pairs of the support desk's `escalate`; nobody's conversations are in it. Leaves served.jsonl and pairs.jsonl in the
working directory.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from openai import OpenAI

from lifealign.data.suites.support_desk import load_suite

COMMAND = [sys.executable, "-m", "lifealign"]
LOG, PAIRS = "served.jsonl", "pairs.jsonl"


def main(life: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    serve = [*COMMAND, "serve", life, "--port", "0", "--log", LOG]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        client = OpenAI(base_url=server.stdout.readline().split()[0], api_key="none")
        talk(client, os.path.basename(os.path.abspath(life)), life)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def talk(client: OpenAI, name: str, life: str) -> None:
    pairs = next(task for task in load_suite(24, held_out="dev") if task.name == "escalate").train

    def ask(text: str, model: str = name) -> Any:
        messages: Any = [{"role": "user", "content": text}]
        return client.chat.completions.create(model=model, messages=messages, max_tokens=48)

    start = time.perf_counter()
    for pair in pairs:
        given = ask(pair.prompt[-1].content)
        client.post("/feedback", body={"id": given.id, "edited": pair.chosen}, cast_to=dict)
    print(f"{len(pairs)} answers and corrections: {time.perf_counter() - start:.0f} s")
    first = pairs[0].prompt[-1].content
    print(f"“{first}”")
    for model in (name, f"{name}@base"):
        given = ask(first, model)
        print(f"  {given.model}: {given.choices[0].message.content}")
    subprocess.run([*COMMAND, "collect", LOG, "--out", PAIRS], check=True)
    start = time.perf_counter()
    subprocess.run([*COMMAND, "learn", life, PAIRS, "--name", "from-service"], check=True)
    print(f"learnt in {time.perf_counter() - start:.0f} s, while the server went on")
    given = ask(first)
    print(f"  {given.model}: {given.choices[0].message.content}")


if __name__ == "__main__":
    main(sys.argv[1])
