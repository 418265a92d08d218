"""Choose the number of models that one call trains: as many as fit in memory, and no more than train fast."""

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

_FEW = 8  # up to so many models stay together on a CPU, whatever the size of its cache
# A bound of a step's bytes, as a multiple of the bytes of state and batch. Measured: nine times for a ConvNet and
# batches of 64, half as much for an MLP, nine times for a relaxed VQ-VAE with a batch ten times as large as its state.
_STEP_PER_INPUT = 50
_SHARE = 0.5  # of the free memory: other processes are there too
# Bytes that many models of one call may take on a CPU, so that they stay in the processor's cache from step to step.
_CACHED_BYTES = 12_000_000


@dataclass(frozen=True)
class MemoryNeed:
    """The memory by which the number of models per call was chosen."""

    each: int  # bytes that one model takes with its step, or a bound of them
    traced: bool  # whether `each` was measured on a traced step; else it is a bound
    free: int  # bytes that are free

    def __str__(self) -> str:
        """Describe it in MiB, rounded up."""
        each, free = -(-self.each // 2**20), self.free // 2**20
        return f"{'about' if self.traced else 'less than'} {each} MiB each, {free} MiB free"


def models_at_once(
    stack: Stack, data: DataModule, training: Training, models: int, compute: Compute
) -> tuple[int, MemoryNeed | None]:
    """Choose how many of `models` models, of the kind in `stack`, one call trains; return the memory it rests on, too.

    The latter is None where there was no choice.
    """
    if compute.at_once != "auto":
        return min(compute.at_once, models), None
    if models == 1 or not stack.parameters:
        return models, None
    few, state, free = models <= _FEW, state_bytes(stack), free_bytes(data.device)
    bound, room = state + step_bound(stack, data), free * _SHARE
    # No trace if they fit in any case: it takes 4 s for an MLP, 16 for a ResNet, on a busy core.
    if few and bound * models <= room:
        return models, MemoryNeed(bound, traced=False, free=free)
    step = step_bytes(stack, data, training)
    need = MemoryNeed(state + step, traced=True, free=free)
    most = min(models, int((room - state * models) / step))
    if data.device.type == "cpu" and not few:
        most = min(most, _CACHED_BYTES // need.each)
    # Parts of one size share one program: somewhat smaller parts are better than two programs.
    return next((size for size in range(most, most // 2, -1) if models % size == 0), max(1, most)), need


def free_bytes(device: torch.device) -> int:
    """Memory that this process may take on a device; if the system does not tell, as macOS, all of the memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free, room = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE"), cgroup.room()
    return free if room is None else min(free, room)


def state_bytes(stack: Stack) -> int:
    """Bytes that one model keeps from step to step: parameters and Adam's two moments."""
    return 3 * sum(value[0].nbytes for value in stack.parameters.values())


def step_bound(stack: Stack, data: DataModule) -> int:
    """An upper bound of the bytes that one model needs during a step, beside its state, without a trace of the step."""
    width = data.table.x.shape[1] + stack.template.noise_dim + stack.template.live_dim
    return _STEP_PER_INPUT * (state_bytes(stack) + data.batch_size * width * torch.float32.itemsize)


def step_bytes(stack: Stack, data: DataModule, training: Training) -> int:
    """Bytes that one model needs during a step, beside its state, if no operations are fused."""
    return peak_bytes(step_graph(stack.part(slice(1)), data, training))


def step_graph(stack: Stack, data: DataModule, training: Training) -> GraphModule:
    """Trace one optimiser step of these models to a graph of its operations."""
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
    """The largest number of bytes that results of a graph's operations take at any time, each freed after last use."""
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
    """Return True if an operation allocates its result, and does not return one of its inputs or a view of it."""
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
