"""Turn a training step into one fast call: trace it once for all models of a stack, rewrite it, and compile it.

`torch.compile` on the same function takes some .3 ms a step for guards that look at every parameter, and as much for
launching kernels from Python. Here the step is traced to one graph of tensor operations (the models, their gradients
and Adam, with shapes fixed), and PyTorch's compiler is given that graph, and asked for a C++ program in place of a
Python one. On a GPU the call is recorded as a CUDA graph as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

_NARROW = 16  # numbers in a processor's register
_aten = torch.ops.aten
# tanh by way of exp: its error is that of rounding at 1, and it takes half the time. A program in C++ has no work
# between kernels.
_CPU = {"cpp_wrapper": True, "cpp.use_decompose_tanh": True}


def leaves(arguments: Any) -> list[Tensor]:
    """The tensors in nested tuples and dictionaries, in order."""
    return pytree.tree_leaves(arguments)


def traced(function: Callable[..., Tensor], arguments: Sequence[Any]) -> GraphModule:
    """Trace a function of nested dictionaries of tensors to a graph over their leaves, without computing anything."""
    tensors_given, tree = pytree.tree_flatten(tuple(arguments))

    def flat(*tensors: Tensor) -> Tensor:
        return function(*pytree.tree_unflatten(list(tensors), tree))

    graph = make_fx(flat, tracing_mode="fake")(*tensors_given)
    turn_narrow_products(graph)
    return graph


def compiled(function: Callable[..., Tensor], arguments: Sequence[Any]) -> Callable[..., Tensor]:
    """Compile a function for arguments of these shapes: a function of their `leaves`, which it may change in place."""
    given: list[Any] = leaves(tuple(arguments))
    # `torch.use_deterministic_algorithms` would set this too, but waits seconds for the import of the compiler.
    options: dict[str, Any] = {"deterministic": torch.are_deterministic_algorithms_enabled()}
    if given[0].device.type == "cpu":
        options |= _CPU
    with warnings.catch_warnings():
        # A GPU's 10-bit products are off on purpose: a likelihood of 784 pixels is a sum of large numbers.
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
        warnings.filterwarnings("ignore", message=r"\s*Online softmax is disabled")  # of few rows: nothing to save
        # Its own rule for digamma, the gradient of lgamma.
        warnings.filterwarnings("ignore", message="`torch._prims_common.check` is deprecated", category=FutureWarning)
        program: Callable[..., Tensor] = torch._inductor.compile(traced(function, arguments), given, options=options)
    return program


def turn_narrow_products(graph: GraphModule) -> None:
    """Compute batched products with few columns and many rows as their transposes.

    The gradient of a first layer, (100, B) times (B, 5), takes MKL four times as long as its transpose. Later
    operations find the result transposed in memory: where they took a view, they now take a copy if they must.
    """
    for node in list(graph.graph.nodes):
        if node.target in (_aten.view.default, _aten._unsafe_view.default):
            node.target = _aten.reshape.default
        if node.target is _aten.bmm.default and node.meta["val"].shape[2] < _NARROW <= node.meta["val"].shape[1]:
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(_turned(graph, *node.args))
            graph.graph.erase_node(node)
    graph.recompile()


def _turned(graph: GraphModule, left: Node, right: Node) -> Node:
    turned = [_transpose(graph, operand) for operand in (right, left)]
    product = graph.graph.call_function(_aten.bmm.default, tuple(turned))
    product.meta["val"] = turned[0].meta["val"] @ turned[1].meta["val"]  # of shapes alone
    return _transpose(graph, product)


def _transpose(graph: GraphModule, node: Node) -> Node:
    transposed = graph.graph.call_function(_aten.transpose.int, (node, 1, 2))
    transposed.meta["val"] = node.meta["val"].mT
    return transposed


def cuda_graph(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record the kernels that a call launches; return a function that launches them again at once, and the result."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries set themselves up at their first calls
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, result


class Recorded:
    """A step whose launches are recorded once: later calls copy the changing tensors, and replay.

    Parameters
    ----------
    step
        A function of the changing tensors that updates `state` in place and returns a tensor.
    state
        The tensors that it updates; recording restores them.
    changing
        Tensors of the shapes of its arguments.
    record
        The function that records a call.
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        state: Sequence[Tensor],
        changing: Sequence[Tensor],
        record: Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]] = cuda_graph,
    ) -> None:
        self.inputs = [value.clone() for value in changing]
        before = [value.clone() for value in state]
        self.replay, self.result = record(lambda: step(*self.inputs))
        for value, original in zip(state, before, strict=True):
            value.copy_(original)

    def __call__(self, *changing: Tensor) -> Tensor:
        """Do the step with these arguments; the result is overwritten by the next call."""
        for fixed, value in zip(self.inputs, changing, strict=True):
            fixed.copy_(value)
        self.replay()
        return self.result
