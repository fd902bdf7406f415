"""Counts a model's tokens in texts and prompts, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lifealign.data.pair import Pair
from lifealign.errors import DataError
from lifealign.model.chat_template import TemplateFault, chat_template_of


@dataclass(frozen=True)
class ModelTokens:
    """Counts with a tokenizer, and with its chat template if it has one; see ``lifealign check --model``."""

    tokenizer: PreTrainedTokenizerBase

    def prompts(self, pairs: Sequence[Pair]) -> list[str]:
        """Prompts as the model will read them, up to where the answer starts.

        Raises:
            DataError: If the chat template refuses one; the message names file and line.
        """
        if not self.tokenizer.chat_template:
            return ["\n".join(message.content for message in pair.prompt) for pair in pairs]
        template = chat_template_of(self.tokenizer)
        texts = []
        for pair in pairs:
            try:
                texts.append(template.prompt(pair.prompt))
            except TemplateFault as error:
                path, _, line = pair.source.rpartition(":")
                found = f"a prompt that the chat template refuses ({error.reason})"
                raise DataError(path, line=int(line), found=found, expected="roles that this model knows") from error
        return texts

    def count(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens in each text, without special tokens."""
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
