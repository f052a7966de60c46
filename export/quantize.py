"""Eight bits where they cost little: conv6, the decoder and the refiner, as Q/DQ in the graph.

VGG's layers stay as they are: their maxima decide where the decoder puts what it has.

The sums must be right, too: a processor with AVX2 and without VNNI adds products of eight bits in
sixteen, which overflow.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import torch

from export.graph import add_constant
from export.hooks import named_convolutions, watching
from train.network import DeepImageMatting

INT8 = "int8"
"""The precision's name."""

KEPT = "backbone.encoder.layer"
"""How the names of VGG's layers begin."""

SHARE = 0.9999
"""Of a layer's input in its range, the rest is cut off: a wider one has coarser steps for all."""

SMALLEST_SCALE = 1e-8
"""Of what is 0 throughout."""

Ranges = dict[str, tuple[float, float]]
"""By layer, the lowest and the highest value of its input that eight bits are spread over."""


@contextmanager
def input_ranges(network: DeepImageMatting) -> Iterator[Ranges]:
    """Note, by layer that is to have eight bits, the range of its inputs over all pictures."""
    ranges: Ranges = {}

    def note(name: str, given: torch.Tensor, _: torch.Tensor) -> None:
        low, high = np.quantile(given.detach().numpy(), [1 - SHARE, SHARE])
        before = ranges.get(name, (0.0, 0.0))
        ranges[name] = min(float(low), before[0]), max(float(high), before[1])

    layers = named_convolutions(network).items()
    with watching({n: layer for n, layer in layers if not n.startswith(KEPT)}, note):
        yield ranges


def quantize(model: ir.Model, ranges: Ranges) -> None:
    """Put QuantizeLinear and DequantizeLinear before the input and the weights of some layers.

    Inputs become uint8 with one scale, weights int8 with one for each output channel, around 0:
    what a processor's VNNI multiplies. Runtimes fold the weights' at loading.
    """
    for node in [node for node in model.graph if node.op_type == "Conv"]:
        layer = node.inputs[1].name.removesuffix(".weight")
        if layer not in ranges:
            continue
        low, high = ranges[layer]
        scale = np.float32(max((high - low) / 255, SMALLEST_SCALE))
        round_trip(model, node, 0, scale, np.uint8(round(-low / scale)))
        weights = node.inputs[1].const_value.numpy()
        largest = np.abs(weights).max(axis=(1, 2, 3))
        scales = np.maximum(largest / 127, SMALLEST_SCALE).astype(np.float32)
        round_trip(model, node, 1, scales, np.zeros(len(scales), np.int8))


def round_trip(
    model: ir.Model, node: ir.Node, index: int, scale: np.ndarray, zero: np.ndarray
) -> None:
    """Round one of a node's inputs to eight bits, with one scale or one for each of axis 0."""
    value = node.inputs[index]
    axis = {"axis": 0} if np.ndim(scale) else {}
    steps = [
        add_constant(model, f"{node.name}.{index}.{name}", array)
        for name, array in (("scale", scale), ("zero", zero))
    ]
    quantized = ir.node("QuantizeLinear", [value, *steps], axis)
    rounded = ir.node("DequantizeLinear", [quantized.outputs[0], *steps], axis)
    quantized.outputs[0].shape = rounded.outputs[0].shape = value.shape
    quantized.outputs[0].dtype = ir.tensor(zero).dtype
    rounded.outputs[0].dtype = value.dtype
    model.graph.insert_before(node, [quantized, rounded])
    node.replace_input_with(index, rounded.outputs[0])
