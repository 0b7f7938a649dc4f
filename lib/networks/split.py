"""A network cut in two at one of its modules: what leads up to its output, and what follows.

Only modules that hold the layer are looked into (by torch.fx), so that control flow in others
does not matter; both halves share the network's own modules and parameters.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError


class _Around(fx.Tracer):
    """Looks only into modules that hold the layer."""

    def __init__(self, layer: str):
        super().__init__()
        names = layer.split(".")
        self._holders = {".".join(names[:count]) for count in range(1, len(names))}

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name not in self._holders


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode; every submodule's own mode is restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


def split_at(network: nn.Module, layer: str) -> tuple[nn.Module, nn.Module]:
    """(features, head): images to a layer's output, and that to what the network returns.

    layer : a module's name, as `network.named_modules()` gives it
    Raises ValueError for a name that is not there, a layer that is not used once in the forward,
    a network whose end takes more than the layer's output, and one that cannot be traced.
    """
    if layer not in dict(network.named_modules()) or not layer:
        children = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"there is no layer {layer!r}; the network's parts are {children}")
    try:
        # In training mode `self.training` would be written into the halves for good.
        with evaluating(network):
            graph = _Around(layer).trace(network)
    except (TraceError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the network cannot be cut at {layer!r}: torch.fx cannot follow its forward"
            f"{_line_of(error)}: {error}. Take such a check of a tensor or its shape out, or give "
            "the network `forward_features` and `forward_head`, which are then taken as they are"
        ) from error
    cuts = [n for n in graph.nodes if n.op == "call_module" and n.target == layer]
    if len(cuts) != 1:
        raise ValueError(
            f"the forward uses layer {layer!r} {len(cuts)} times, and must use it once"
        )
    before = _needed_for(cuts)
    features, head = fx.Graph(), fx.Graph()
    end = _copied(features, (n for n in graph.nodes if n in before), {})
    features.output(end[cuts[0]])
    start = {cuts[0]: head.placeholder("features")}
    needed = _needed_for([_result(graph)])
    rest = [n for n in graph.nodes if n in needed and n not in before]
    # Constants of the network, and options that nobody gives, may be used on both sides; what
    # comes from the image may not.
    image = next(n for n in graph.nodes if n.op == "placeholder")
    constants = [n for n in graph.nodes if n in before and n is not image and _is_constant(n)]
    for node in rest:
        around = [n for n in node.all_input_nodes if n in before and n not in (*cuts, *constants)]
        if around:
            raise ValueError(
                f"the network cannot be cut at {layer!r}: {node.name} also takes {around[0].name}, "
                "which goes around that layer"
            )
    done = _copied(head, [*constants, *(n for n in rest if n.op != "output")], start)
    head.output(fx.node.map_arg(_result(graph).args[0], lambda n: done[n]))
    return fx.GraphModule(network, features), fx.GraphModule(network, head)


def _is_constant(node: fx.Node) -> bool:
    return node.op == "get_attr" or (node.op == "placeholder" and bool(node.args))


def _line_of(error: BaseException) -> str:
    """Where, in code that is not torch's, an error was raised."""
    library = Path(torch.__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_file() and file != Path(__file__) and not file.is_relative_to(library):
            return f" ({file}, line {frame.lineno})"
    return ""


def _result(graph: fx.Graph) -> fx.Node:
    return next(n for n in graph.nodes if n.op == "output")


def _needed_for(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    open_ = list(nodes)
    while open_:
        node = open_.pop()
        if node not in found:
            found.add(node)
            open_ += node.all_input_nodes
    return found


def _copied(
    graph: fx.Graph, nodes: Iterable[fx.Node], known: dict[fx.Node, fx.Node]
) -> dict[fx.Node, fx.Node]:
    """Old nodes to new ones."""
    made = dict(known)
    for node in nodes:
        made[node] = graph.node_copy(node, made.__getitem__)
    return made
