"""What goes wrong with a judge as a whole; what goes wrong with one answer is a missing mark with a reason."""

from __future__ import annotations

from lifealign.errors import LifeAlignError


class JudgeError(LifeAlignError):
    """A judge that cannot go on: no server, a refused key, an unknown model, a cache that cannot be opened.

    No mark is lost: what the judge said before is in the cache of verdicts, and the same call goes on from there. The
    text never holds the key, and no exception of the client, which might hold it, is chained to this one.
    """

    exit_code = 1
