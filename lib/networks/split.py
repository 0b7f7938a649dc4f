"""A network cut in two at one of its modules: the part up to its output, and the rest.

torch.fx looks only into modules that contain the layer, so control flow in others does not
matter. Both halves share the network's own modules and parameters.
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
    """Traces only into modules that contain the layer."""

    def __init__(self, layer: str):
        super().__init__()
        names = layer.split(".")
        self._holders = {".".join(names[:count]) for count in range(1, len(names))}

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name not in self._holders


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put the model in eval mode, and restore every submodule's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


def split_at(network: nn.Module, layer: str) -> tuple[nn.Module, nn.Module]:
    """Return (features, head): from images to a layer's output, and from there to the answer.

    layer : a module's name, as in `network.named_modules()`

    Raises ValueError for a name that does not exist, a layer that the forward does not use exactly
    once, a network whose rest takes more than the layer's output, and one that cannot be traced.
    """
    if layer not in dict(network.named_modules()) or not layer:
        children = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"layer {layer!r} does not exist; the network's parts are {children}")
    try:
        # In training mode `self.training` would become fixed in the halves.
        with evaluating(network):
            graph = _Around(layer).trace(network)
    except (TraceError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the network cannot be cut at {layer!r}: torch.fx cannot follow its forward"
            f"{_line_of(error)}: {error}. Remove this check of a tensor or its shape, or give "
            "the network `forward_features` and `forward_head`, which are then used as they are"
        ) from error
    cuts = [n for n in graph.nodes if n.op == "call_module" and n.target == layer]
    if len(cuts) != 1:
        raise ValueError(
            f"the forward uses layer {layer!r} {len(cuts)} times, but must use it once"
        )
    before = _needed_for(cuts)
    features, head = fx.Graph(), fx.Graph()
    end = _copied(features, (n for n in graph.nodes if n in before), {})
    features.output(end[cuts[0]])
    start = {cuts[0]: head.placeholder("features")}
    needed = _needed_for([_result(graph)])
    rest = [n for n in graph.nodes if n in needed and n not in before]
    # Constants of the network, and options without a value, may be used on both sides; values
    # that depend on the image may not.
    image = next(n for n in graph.nodes if n.op == "placeholder")
    constants = [n for n in graph.nodes if n in before and n is not image and _is_constant(n)]
    for node in rest:
        around = [n for n in node.all_input_nodes if n in before and n not in (*cuts, *constants)]
        if around:
            raise ValueError(
                f"the network cannot be cut at {layer!r}: {node.name} also takes {around[0].name}, "
                "which bypasses that layer"
            )
    done = _copied(head, [*constants, *(n for n in rest if n.op != "output")], start)
    head.output(fx.node.map_arg(_result(graph).args[0], lambda n: done[n]))
    return fx.GraphModule(network, features), fx.GraphModule(network, head)


def _is_constant(node: fx.Node) -> bool:
    return node.op == "get_attr" or (node.op == "placeholder" and bool(node.args))


def _line_of(error: BaseException) -> str:
    """Return where, in code outside torch, an error was raised."""
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
    """Copy nodes into a graph; return old nodes mapped to new ones."""
    made = dict(known)
    for node in nodes:
        made[node] = graph.node_copy(node, made.__getitem__)
    return made
