"""Starts the endpoint, by uvicorn, and ends it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing

import uvicorn
from fastapi import FastAPI

from lifealign.errors import ConfigError

PATIENCE = 10
"""Seconds that answers which are being written have to come to their end."""


def serve(app: FastAPI, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        app: The routes.
        host: Name or address of the interface.
        port: The port; 0 takes a free one.
        ready: Called with the address once the port is open.

    Raises:
        ConfigError: If the port or the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--host {host}: could not be used: {error.strerror}") from error
    with closing(listening):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen()  # from here on a client that is quicker than the server waits for it
        except OSError as error:
            raise ConfigError(
                f"--port {port}: could not be used on {host}: {error.strerror}; --port 0 takes a free one"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}/v1")
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE, server_header=False
        )
        uvicorn.Server(settings).run(sockets=[listening])
