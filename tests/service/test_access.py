"""Who may reach the endpoint."""

from __future__ import annotations

import pytest

from lifealign.errors import ConfigError
from lifealign.service.access import KEY, allowed_hosts, api_key


def test_other_machines_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert api_key("127.0.0.1") == api_key("localhost") == api_key("::1") == ""
    for host in ("0.0.0.0", "::", "192.168.0.7", "my-machine"):
        with pytest.raises(ConfigError, match=f"--host {host} needs a key"):
            api_key(host)
    monkeypatch.setenv(KEY, " sesame \n")
    assert api_key("0.0.0.0") == "sesame"
    for broken in ("two words", "schlüssel"):
        monkeypatch.setenv(KEY, broken)
        with pytest.raises(ConfigError, match="not shown") as caught:
            api_key("127.0.0.1")
        assert broken not in str(caught.value)


def test_on_this_machine_only_its_own_names_are_answered() -> None:
    assert "*" not in allowed_hosts("127.0.0.1") and "localhost" in allowed_hosts("127.0.0.1")
    assert allowed_hosts("0.0.0.0") == ["*"]
