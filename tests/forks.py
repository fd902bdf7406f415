"""`lifealign` and `python` for the shells of tests, each run in a fork of one process that has imported everything.

Starting either takes seconds, nearly all of them imports, and the documentation calls them a hundred times. What a
shell finds on its PATH is ``CLIENT``: it hands its arguments, folder, environment and standard streams to this process,
and ends as the fork does. ``python -m tests.forks SOCKET`` is this process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLIENT = """#!{python} -SE
import json, os, signal, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    called = {{"argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(called).encode() + b"\\n"], [0, 1, 2])
    answers = server.makefile()
    fork = int(answers.readline())
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda number, frame: os.kill(fork, number))
    sys.exit(int(answers.readline()))
"""


def write_clients(folder: Path, address: Path) -> None:
    """Writes both programs into a folder for PATH."""
    for name in ("lifealign", "python"):
        program = folder / name
        program.write_text(CLIENT.format(python=sys.executable, address=str(address)))
        program.chmod(0o755)


def import_everything() -> None:
    """Imports the package, and what its pages use beside it."""
    package = importlib.import_module("lifealign")
    for module in pkgutil.walk_packages(package.__path__, "lifealign."):
        if module.name not in ("lifealign.__main__", "lifealign.training.trl"):  # the second needs an extra
            importlib.import_module(module.name)
    for name in ("openai", "matplotlib.pyplot", "transformers.models.llama.modeling_llama"):
        importlib.import_module(name)


def serve(address: str) -> None:
    """Forks for every caller, until it is terminated."""
    import_everything()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer callers
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            caller, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(caller)
            caller.close()


def _answer(caller: socket.socket) -> None:
    """Runs what a caller wants in one more fork, and tells it how that has ended."""
    sent, streams, _, _ = socket.recv_fds(caller, 2**16, 3)
    while not sent.endswith(b"\n"):
        sent += caller.recv(2**16)
    child = os.fork()
    if child == 0:
        _become(json.loads(sent), streams)
    caller.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    caller.sendall(f"{os.waitstatus_to_exitcode(status) % 256}\n".encode())
    os._exit(0)


def _become(called: dict[str, Any], streams: list[int]) -> None:
    """Is the program that was called."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without it
    os.chdir(called["folder"])
    os.environ.clear()
    os.environ.update(called["environment"])
    program, *arguments = called["argv"]
    code: Any = 0
    try:
        _program(Path(program).name, arguments)()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _program(name: str, arguments: list[str]) -> Callable[[], Any]:
    if name == "lifealign":
        sys.argv = [name, *arguments]
        from lifealign.cli.main import main

        return main
    first, *rest = arguments
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        return lambda: exec(compile(rest[0], "<-c>", "exec"), {"__name__": "__main__"})
    sys.path.insert(0, os.getcwd())
    sys.argv = rest if first == "-m" else arguments
    return lambda: (
        runpy.run_module(rest[0], run_name="__main__") if first == "-m" else runpy.run_path(first, {}, "__main__")
    )


if __name__ == "__main__":
    serve(sys.argv[1])
