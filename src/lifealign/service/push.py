"""A version of a life on the Hugging Face hub: what ``export`` writes, its card, and if wanted the life's page."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from lifealign.errors import ConfigError, LifeAlignError
from lifealign.life.disk.names import PAGE
from lifealign.life.export import Form, export_life
from lifealign.life.life import Life
from lifealign.report.page.life_page import life_page

UNREACHABLE: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
"""What the hub's client raises about connections: errors of its HTTP library, whichever that is, and of the system."""


class HubError(LifeAlignError):
    """The hub cannot be reached, or refuses."""

    exit_code = 1


@dataclass(frozen=True)
class Pushed:
    """What is on the hub now.

    Attributes:
        url: The commit's address.
        version: The version that was pushed.
        files: Names of the files.
        private: Whether the repository is private.
    """

    url: str
    version: str
    files: tuple[str, ...]
    private: bool


def push_life(
    life: Life, repo: str, *, private: bool, form: Form = "adapter", as_of: str | None = None, page: bool = False
) -> Pushed:
    """Puts a version of a life into a repository of the hub, in one commit; the repository is made if it is missing.

    Args:
        life: The life.
        repo: ``owner/name``.
        private: Whether the repository is to be private; if not, a new one is as its owner has it by default. One that
            exists keeps what it is.
        form: What is written, as for :func:`~lifealign.life.export.export_life`.
        as_of: The version; None for the last one.
        page: Whether the life's page goes with it. It quotes held-out prompts and answers.

    Raises:
        ConfigError: If the name is not one, or ``private`` is asked for and the repository is public.
        HubError: If the hub cannot be reached or refuses; nothing was pushed then.
        LifeError: For the reasons given in ``export_life``.
        ModelError: For the reasons given there.
    """
    api = HfApi(library_name="lifealign")
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "export")
        export_life(life.workspace, out, form=form, as_of=as_of)
        files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        if page:
            operations.append(CommitOperationAdd(PAGE, life_page(life).encode()))
        version = life.versions[-1].name if as_of is None else as_of
        try:
            name = api.create_repo(repo, private=private or None, exist_ok=True).repo_id
            is_private = bool(api.model_info(name).private)
            if private and not is_private:
                raise ConfigError(
                    f"{repo}: found a public repository, expected a private one, because of --private; make it private "
                    "on the hub, or push without --private"
                )
            commit = api.create_commit(name, operations, commit_message=f"{version} ({form})")
        except HFValidationError as error:
            raise ConfigError(f"{repo}: found no name of a repository, expected owner/name") from error
        except LocalTokenNotFoundError as error:
            raise HubError("the hub wants to know who you are; run `hf auth login`, or export HF_TOKEN=...") from error
        except OfflineModeIsEnabled as error:
            raise HubError("HF_HUB_OFFLINE is set, so the hub is not asked; unset it to push") from error
        except HfHubHTTPError as error:
            raise HubError(f"{repo}: the hub refuses: {_first_line(error)}") from error
        except UNREACHABLE as error:
            raise HubError(f"{repo}: the hub could not be reached: {_first_line(error)}") from error
    return Pushed(commit.commit_url, version, tuple(one.path_in_repo for one in operations), is_private)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
