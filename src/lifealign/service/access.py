"""Who may reach the endpoint: from this machine alone, or with a key."""

from __future__ import annotations

import ipaddress
import os

from lifealign.errors import ConfigError

KEY = "LIFEALIGN_API_KEY"
"""Environment variable with the key that clients have to send."""


def api_key(host: str) -> str:
    """The key that clients have to send, from the environment; empty for none.

    Raises:
        ConfigError: If the server is to be reachable from other machines and there is no key, or the key cannot be sent
            in a header.
    """
    key = os.environ.get(KEY, "").strip()
    if any(not "!" <= character <= "~" for character in key):
        raise ConfigError(f"{KEY}: found a blank or a character that is not ASCII (not shown), expected visible ASCII")
    if not key and not is_loopback(host):
        raise ConfigError(f"--host {host} needs a key, because other machines can reach it; export {KEY}=...")
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server there.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(host: str) -> list[str]:
    """Names under which a server may be called: on loopback those of this machine, so that no web page can reach it."""
    return ["localhost", "127.0.0.1", "[::1]", host] if is_loopback(host) else ["*"]
