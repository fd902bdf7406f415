"""A base that several processes hold together: of every decoder layer, each has a part of the frozen weights.

PyTorch's ``fully_shard`` puts a layer together when it is computed and drops the others' parts again, in the backward
pass too; what is learnt, the embedding and the head are whole everywhere. So every pass has to be made by all processes
at once. Those of a round are: each computes its own share. To a pass of the leader alone (when it scores, generates or
takes a reference) the others are called, and they attend it with a row of their own, whose numbers nobody uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lifealign.errors import ModelError
from lifealign.model.channel import Channel
from lifealign.model.device import current_device
from lifealign.model.prompt_pool import prompt_pool
from lifealign.model.quantized import is_four_bit


def shard(model: PeftModel, size: int) -> None:
    """Leaves this process its part of every decoder layer's frozen weights; all processes of a run do it.

    Args:
        model: The base with an adapter, whole; it may still be on the CPU where the layers' parts go to an accelerator.
        size: Number of processes.

    Raises:
        ModelError: If the base's layers are not one list that it names.
    """
    mesh = init_device_mesh(current_device().type, (size,))
    for layer in decoder_of(model)[1]:
        added = {parameter for name, parameter in layer.named_parameters() if ".lora_" in name}
        fully_shard(layer, mesh=mesh, ignored_params=added, reshard_after_forward=True)  # a root would not


def require_shardable(model: PeftModel) -> None:
    """Refuses a model whose base cannot be held together.

    Raises:
        ModelError: If the base's layers are not one list that it names, or are in 4 bits; or the model has soft
            prompts: each is picked by a pass of its own, of which every process would make another number in a round.
    """
    decoder_of(model)
    if is_four_bit(model):
        raise ModelError("device.sharding: found base and model.load_in_4bit, expected one of them")
    if prompt_pool(model) is not None:
        raise ModelError("device.sharding: found base, expected none with soft prompts (l2p)")


def decoder_of(model: PeftModel) -> tuple[nn.Module, nn.ModuleList]:
    """The module whose forward pass is one pass through all decoder layers, and the list of these.

    Raises:
        ModelError: If the base does not name the class of its layers, or they are not exactly one list.
    """
    base: Any = model.get_base_model()
    kinds = set(getattr(base, "_no_split_modules", None) or ())

    def is_layer(module: nn.Module) -> bool:
        return bool(kinds & {kind.__name__ for kind in type(module).__mro__})  # a layer that is cut has a new class

    found = [
        (parent, child)
        for parent in base.modules()
        for child in parent.children()
        if isinstance(child, nn.ModuleList) and len(child) and all(map(is_layer, child))
    ]
    if len(found) != 1 or sum(map(is_layer, base.modules())) != len(found[0][1]):
        raise ModelError(
            f"device.sharding: found base, expected none, because the layers of {type(base).__name__} are not one list "
            "of modules that it names"
        )
    return found[0]


class Attended:
    """At the leader: calls the others to every pass that is not one of a round.

    Args:
        model: The leader's model, sharded.
        channel: To the others.
        meet: Makes sure that they still hold this base, or raises an error.
    """

    def __init__(self, model: PeftModel, channel: Channel, meet: Callable[[], None]) -> None:
        self._model, self._channel, self._meet = model, channel, meet
        self._alone, self._passes = True, 0
        decoder, _ = decoder_of(model)
        decoder.register_forward_pre_hook(self._call)
        decoder.register_forward_hook(self._call_back)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Within the context, passes are those of a round, which the others make too."""
        self._alone = False
        try:
            yield
        finally:
            self._alone = True

    def _call(self, *_: object) -> None:
        if not self._alone:
            return
        self._meet()
        self._passes += 1
        base: Any = self._model.get_base_model()
        self._channel.tell(
            {
                "do": "attend",
                "attended": self._passes,
                "gradient": torch.is_grad_enabled(),
                "training": self._model.training,
                "checkpointing": bool(base.is_gradient_checkpointing),
            }
        )

    def _call_back(self, decoder: nn.Module, arguments: object, output: Any) -> None:
        hidden: Tensor = output[0]
        if self._alone and hidden.requires_grad:
            number = self._passes
            hidden.register_hook(lambda _: self._channel.tell({"do": "attend backward", "attended": number}))


def attendance(model: PeftModel, token: int) -> Tensor:
    """One pass through all layers, made because the leader makes one: hidden states of a row of one token.

    Args:
        model: The model, sharded.
        token: The token.
    """
    decoder: Any = decoder_of(model)[0]
    ids = torch.tensor([[token]], device=model.device)
    return decoder(input_ids=ids, use_cache=False)[0]  # type: ignore[no-any-return]
