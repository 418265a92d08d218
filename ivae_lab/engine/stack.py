"""S models of one kind as one: parameters are stacked along a first dimension, methods are mapped over it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from ivae_lab.core.data import Batch
from ivae_lab.engine.random_streams import generator
from ivae_lab.models.base import Model

# Rows that `map` is given at a time, so that memory does not grow with the data.
ENCODE_ROWS, ENCODE_IMAGES = 2048, 256
Parameters = dict[str, Tensor]  # by name, each (S, ...)


class Stack:
    """The models of several seeds.

    Parameters
    ----------
    build_model
        Builds one model; its weights come from PyTorch's global generator, seeded here for each seed alone.
    seeds
        The S model seeds.
    device
        The device of parameters and buffers.
    """

    def __init__(self, build_model: Callable[[], Model], seeds: list[int], device: torch.device) -> None:
        self.seeds, self.device = seeds, device
        models = [_seeded(build_model, seed) for seed in seeds]
        parameters, buffers = stack_module_state(models)
        self.parameters: Parameters = {name: value.detach().to(device) for name, value in parameters.items()}
        self.buffers: Parameters = {name: value.detach().to(device) for name, value in buffers.items()}
        self.template = deepcopy(models[0]).to("meta")  # the computation, without numbers
        self._one = models[0].to(device)

    @classmethod
    def joined(cls, stacks: list[Stack]) -> Stack:
        """Join several stacks into one; their numbers become views of it, so that training it trains them."""
        if len(stacks) == 1:
            return stacks[0]
        whole = copy(stacks[0])
        whole.seeds = [seed for stack in stacks for seed in stack.seeds]
        for state in ("parameters", "buffers"):
            parts = [getattr(stack, state) for stack in stacks]
            setattr(whole, state, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        start = 0
        for stack in stacks:
            part = whole.part(slice(start, start + len(stack.seeds)))
            stack.parameters, stack.buffers = part.parameters, part.buffers
            start += len(stack.seeds)
        return whole

    def part(self, positions: slice) -> Stack:
        """The stack of some of the models; its numbers are views of this stack's."""
        part = copy(self)
        part.seeds = self.seeds[positions]
        part.parameters = {name: value[positions] for name, value in self.parameters.items()}
        part.buffers = {name: value[positions] for name, value in self.buffers.items()}
        return part

    @property
    def weights(self) -> int:
        """Number of parameters of all models together."""
        return sum(value.numel() for value in self.parameters.values())

    def shapes(self) -> list[dict[str, str | int]]:
        """A row for each parameter tensor of one model: name, shape, and its number of numbers."""
        return [
            {"name": name, "shape": " x ".join(map(str, value.shape[1:])), "numbers": value[0].numel()}
            for name, value in self.parameters.items()
        ]

    def map(self, method: str, batch: Batch | None, *arguments: Tensor) -> Any:
        """Call a method on rows that all seeds share; `arguments` carry a first dimension of seeds, (S, ...).

        Without a batch, call a method that takes none. The models do not change.
        """
        shared = () if batch is None else (batch,)

        def one(parameters: Parameters, buffers: Parameters, *rest: Tensor) -> Any:
            return functional_call(self.template, (parameters, buffers), (method, *shared, *rest))

        with torch.no_grad():
            buffers = {name: value.clone() for name, value in self.buffers.items()}
            return vmap(one)(self.parameters, buffers, *arguments)

    def model(self, position: int) -> Model:
        """The model of one seed; changes of it must be put back with `replace`."""
        state = {**self.parameters, **self.buffers}
        self._one.load_state_dict({name: value[position] for name, value in state.items()})
        return self._one

    def replace(self, position: int, model: Model) -> None:
        """Take over the numbers of one seed's model."""
        for name, value in model.named_parameters():
            self.parameters[name][position] = value.detach()
        for name, buffer in model.named_buffers():
            self.buffers[name][position] = buffer

    def gradients(self, method: str) -> Callable[..., tuple[Parameters, tuple[Tensor, dict[str, Tensor]]]]:
        """A function of (parameters, buffers, x, u, index, noise, progress) that maps a loss and its gradient.

        Batch parts and noise are (S, B, ...), progress is shared. It returns the gradients, (S, ...) each, and
        (loss, terms), (S,) each.
        """

        def one(
            parameters: Parameters,
            buffers: Parameters,
            x: Tensor,
            u: Tensor | None,
            index: Tensor,
            noise: Tensor,
            progress: Tensor,
        ) -> tuple[Tensor, dict[str, Tensor]]:
            batch = Batch(x, u, None, index)
            terms = functional_call(self.template, (parameters, buffers), (method, batch, noise, progress))
            return terms["loss"], terms

        def mapped(
            parameters: Parameters, buffers: Parameters, x: Tensor, u: Tensor | None, *rest: Tensor
        ) -> tuple[Parameters, tuple[Tensor, dict[str, Tensor]]]:
            dims = (0, 0, 0, None if u is None else 0, 0, 0, None)
            return vmap(grad_and_value(one, has_aux=True), in_dims=dims)(parameters, buffers, x, u, *rest)

        return mapped


def _seeded(build_model: Callable[[], Model], seed: int) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights").initial_seed())
        return build_model()
