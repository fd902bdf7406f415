"""The door of the command line, for ``lifealign`` and ``python -m lifealign``: Ctrl-C is one line from here on."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as a shell has it of any other program."""
NO_TELEMETRY = {"HF_HUB_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0", "VLLM_NO_USAGE_STATS": "1"}
"""Keeps libraries from reporting to their makers, in this process and in those it starts; they read it once, early."""


def main() -> None:
    """Runs the command line and ends the process; see :func:`lifealign.cli.main.main`."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # whoever has it ignored keeps that
    if ours:
        signal.signal(signal.SIGINT, _interrupt)
    for name, value in NO_TELEMETRY.items():
        os.environ.setdefault(name, value)  # what the user has set stays
    try:
        from lifealign.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_say_so())
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the interpreter's own end is nothing to tell of


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, unless modules are being imported: then the process ends here.

    An import that is cut short leaves libraries half loaded, and these print pages of it on their way out. Nothing is
    lost: what a life holds on disk is whole at any moment.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os._exit(_say_so())
        frame = frame.f_back
    raise KeyboardInterrupt


def _say_so() -> int:
    os.write(2, b"interrupted\n")  # not through sys.stderr, which an import may have in use
    return INTERRUPTED


if __name__ == "__main__":
    main()
