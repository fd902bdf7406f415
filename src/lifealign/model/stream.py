"""One answer, shown while it is written; its text is that of :func:`~lifealign.model.generate.generate_answers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from lifealign.data.pair import Message
from lifealign.model.decoding import by_logits_alone
from lifealign.model.generate import answer_text, read_by, stop_token_ids
from lifealign.model.head import contiguous_for_head
from lifealign.model.runtime import Runtime
from lifealign.model.sampling import GumbelNoise, Sampling, filters_of
from lifealign.model.tokens import prompt_ids

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What the bytes of a character decode to until the last of them is there."""


@dataclass(frozen=True)
class Streamed:
    """An answer, and how it came to its end.

    Attributes:
        text: The answer as plain text.
        finish_reason: ``stop`` if the model ended it, or one of the stop texts did; ``length`` if it was cut;
            ``cancelled`` if nobody wanted the rest.
        prompt_tokens: Tokens of the prompt, the chat template's included.
        completion_tokens: Tokens that were written, without the one that ended the answer.
    """

    text: str
    finish_reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    completion_tokens: int


def stream_answer(
    runtime: Runtime,
    prompt: Sequence[Message],
    show: Callable[[str], None],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    cancelled: Callable[[], bool] = lambda: False,
) -> Streamed:
    """Answers one prompt with the model as it is now, and shows the answer as it grows.

    Args:
        runtime: Model and device.
        prompt: A conversation that ends with the user.
        show: Called with each new piece of the answer; the pieces together are the answer. Reasoning that is stripped
            is not shown.
        max_new_tokens: Maximum length of the answer in tokens; a longer one is cut.
        sampling: How tokens are drawn; None takes the most likely token each time.
        stop: Texts at which the answer ends; they are not part of it.
        cancelled: Asked before every token whether to give up.

    Returns:
        The answer; without ``stop`` its text is what ``generate_answers`` returns for the prompt alone.

    Raises:
        TemplateFault: If the chat template refuses the prompt.
    """
    ids = prompt_ids(runtime.tokenizer, prompt, runtime.reasoning)
    stops = stop_token_ids(runtime)
    growing = _Growing(lambda found: answer_text(runtime, found, stops), show, stop, cancelled)
    runtime.model.eval()
    causal = runtime.model.get_base_model()
    drawn = {} if sampling is None else {"logits_processor": filters_of(sampling, GumbelNoise(sampling.seed, [ids]))}
    try:
        with torch.no_grad(), contiguous_for_head(causal), by_logits_alone(causal):
            rows = torch.tensor([ids], device=runtime.device)
            runtime.model.generate(
                **read_by(runtime, rows, torch.ones_like(rows), [tuple(ids)]),
                max_new_tokens=max_new_tokens,
                do_sample=False,  # sampling adds noise to the logits, and the largest is then taken
                pad_token_id=runtime.tokenizer.pad_token_id,
                eos_token_id=list(stops),
                streamer=growing,
                **drawn,
            )
    except _Enough:
        pass
    written = [token for token in growing.ids if token not in stops]
    if growing.given_up:
        reason: Literal["stop", "length", "cancelled"] = "cancelled"
    else:
        reason = "stop" if growing.stopped or len(written) < len(growing.ids) else "length"
    return Streamed(growing.text, reason, len(ids), len(written))


class _Enough(Exception):
    """Ends ``generate`` from within its streamer, which has no other way."""


class _Growing(BaseStreamer):
    """The text of an answer so far.

    Args:
        text_of: Text of the tokens so far.
        show: Called with each new piece of it.
        stop: Texts at which it ends.
        cancelled: Whether to give up.
    """

    def __init__(
        self,
        text_of: Callable[[list[int]], str],
        show: Callable[[str], None],
        stop: Sequence[str],
        cancelled: Callable[[], bool],
    ) -> None:
        self.text, self.ids = "", list[int]()
        self.stopped = self.given_up = False
        self._text_of, self._show, self._stop, self._cancelled = text_of, show, stop, cancelled
        self._shown = ""
        self._has_read = False

    def put(self, value: Tensor) -> None:
        """Takes what ``generate`` reads, once and before anything is computed, and then each new token."""
        if self._cancelled():
            self.given_up = True
            raise _Enough
        if not self._has_read:
            self._has_read = True
            return
        self.ids += value.flatten().tolist()
        self._grow(self._text_of(self.ids).rstrip(UNFINISHED), held_back=True)

    def end(self) -> None:
        """Shows what was held back."""
        self._grow(self._text_of(self.ids), held_back=False)

    def _grow(self, text: str, *, held_back: bool) -> None:
        places = [place for place in (text.find(one) for one in self._stop) if place >= 0]
        self.stopped = bool(places)
        self.text = text[: min(places)].rstrip() if places else text
        sure = self.text
        if held_back and not places:
            sure = sure[: len(sure) - _begun(sure, self._stop)].rstrip()  # as it is if the stop text follows
        if sure.startswith(self._shown) and len(sure) > len(self._shown):
            self._show(sure[len(self._shown) :])
            self._shown = sure
        if places:
            raise _Enough


def _begun(text: str, stop: Sequence[str]) -> int:
    r"""Characters at the end of a text that may be the beginning of a stop text.

    Example:
        >>> _begun("Hello.\nUs", ("\nUser:", "###")), _begun("Hello", ("###",))
        (3, 0)
    """
    return max(
        (length for one in stop for length in range(1, min(len(one), len(text) + 1)) if text.endswith(one[:length])),
        default=0,
    )
