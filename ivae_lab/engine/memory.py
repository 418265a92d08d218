"""How many models one call trains: as many as fit in memory, and no more than train fast."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ivae_lab.engine import control_groups as cgroup
from ivae_lab.engine.compiler import traced
from ivae_lab.engine.options import Compute, Training
from ivae_lab.engine.shuffling import Shuffled
from ivae_lab.engine.stack import Stack
from ivae_lab.engine.steps import StackPart, new_state, update_of

if TYPE_CHECKING:
    from ivae_lab.engine.datamodule import DataModule

_FEW = 8  # as many models stay together on a CPU whatever its cache holds
# A step needs less than so many times the state and the numbers of a batch: nine times for a ConvNet and batches of 64,
# half as much for an MLP, nine times for a relaxed VQ-VAE whose batch has ten times the numbers of its state.
_STEP_PER_INPUT = 50
_SHARE = 0.5  # of the free memory: other processes are there too
# What many models of one call may take together on a CPU, so that it stays in the processor's cache from step to step.
_CACHED_BYTES = 12_000_000


@dataclass(frozen=True)
class MemoryNeed:
    """What the number of models that one call trains was chosen by."""

    each: int  # bytes that one model takes with its step
    traced: bool  # or it takes less than these, and how much was not looked at
    free: int  # bytes

    def __str__(self) -> str:
        """Say it in MiB, rounded up."""
        each, free = -(-self.each // 2**20), self.free // 2**20
        return f"{'about' if self.traced else 'less than'} {each} MiB each, {free} MiB free"


def models_at_once(
    stack: Stack, data: DataModule, training: Training, models: int, compute: Compute
) -> tuple[int, MemoryNeed | None]:
    """How many of `models` models, of the kind in `stack`, to train by one call, and why.

    The latter is None where there was nothing to choose.
    """
    if compute.at_once != "auto":
        return min(compute.at_once, models), None
    if models == 1 or not stack.parameters:
        return models, None
    few, own, free = models <= _FEW, state_bytes(stack), free_bytes(data.device)
    bound, room = own + step_bound(stack, data), free * _SHARE
    # Not traced where they fit in any case: that takes 4 s of an MLP, 16 of a ResNet, on a busy core.
    if few and bound * models <= room:
        return models, MemoryNeed(bound, traced=False, free=free)
    step = step_bytes(stack, data, training)
    need = MemoryNeed(own + step, traced=True, free=free)
    most = min(models, int((room - own * models) / step))
    if data.device.type == "cpu" and not few:
        most = min(most, _CACHED_BYTES // need.each)
    # Parts of one size are one program: better somewhat smaller than two programs.
    return next((size for size in range(most, most // 2, -1) if models % size == 0), max(1, most)), need


def free_bytes(device: torch.device) -> int:
    """Memory that this process may take on a device; where the system does not say, as macOS, all that there is."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free, room = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE"), cgroup.room()
    return free if room is None else min(free, room)


def state_bytes(stack: Stack) -> int:
    """What one model keeps from step to step: parameters and Adam's two moments."""
    return 3 * sum(value[0].nbytes for value in stack.parameters.values())


def step_bound(stack: Stack, data: DataModule) -> int:
    """More than one model needs while a step is done, beside its state, known without a look at the step."""
    width = data.table.x.shape[1] + stack.template.noise_dim + stack.template.live_dim
    return _STEP_PER_INPUT * (state_bytes(stack) + data.batch_size * width * torch.float32.itemsize)


def step_bytes(stack: Stack, data: DataModule, training: Training) -> int:
    """What one model needs while a step is done, beside its state, if no two operations are made one."""
    return peak_bytes(step_graph(stack.part(slice(1)), data, training))


def step_graph(stack: Stack, data: DataModule, training: Training) -> GraphModule:
    """The operations of one optimiser step of these models."""
    models, device = len(stack.seeds), data.device
    shuffled = Shuffled(stack.seeds, torch.zeros(models, dtype=torch.int64), data.rows, data.batch_size)
    part = StackPart(stack, new_state(stack, torch.zeros(models, device=device)), shuffled, data, training, None)
    width = stack.template.noise_dim + stack.template.live_dim
    noise = torch.zeros(models, data.batch_size, width, device=device)
    changing = (
        shuffled.at(0).to(device),
        noise,
        torch.tensor(0.5, device=device),
        torch.zeros(6, models, device=device),
    )
    return traced(update_of(stack, "loss", training.clip_norm), (*part.fixed(), *changing))


def peak_bytes(graph: GraphModule) -> int:
    """The most that the results of a graph's operations take at any time, each freed after its last use."""
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    last = {_owner(used): place for place, node in enumerate(nodes) for used in node.all_input_nodes}
    freed: dict[int, int] = {}
    held = peak = 0
    for place, node in enumerate(nodes):
        if makes_something(node):
            held += size(node)
            end = last.get(node, place)
            freed[end] = freed.get(end, 0) + size(node)
        peak = max(peak, held)
        held -= freed.pop(place, 0)
    return peak


def makes_something(node: Node) -> bool:
    """Whether an operation's result is new, and not a view of, or the same as, one of its inputs."""
    return not _is_alias(node) and isinstance(node.meta.get("val"), Tensor)


def size(node: Node) -> int:
    """Bytes of an operation's result."""
    value: Tensor = node.meta["val"]
    return prod(value.shape) * value.element_size()


def _is_alias(node: Node) -> bool:
    if node.target is operator.getitem:  # one of several results
        return _is_alias(node.all_input_nodes[0])
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(result.alias_info is not None for result in schema.returns)


def _owner(node: Node) -> Node:
    """The operation whose memory a view looks at."""
    while node.op == "call_function" and _is_alias(node) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node
