"""The graph as MNN runs it, whose convolutions are Winograd's: FP32 with far fewer products.

Processors that compute in FP32 gain by it: OpenVINO and ONNX Runtime do every product there is.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.errors import ExportError, one_line
from export.graph import add_constant

CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
"""MNN's converter without `mnnconvert`, the command around it, which reports to its makers."""

UUID = rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""In the first bytes of a converted file; a new one each time, for those reports."""

NEAR = 2.0**-14
"""How far below a window's maximum, as a share of it, a value is taken for equal to it.

Where a picture is quite flat its values are equal, the first is the maximum, and the network has
learnt with that. Winograd's sums of equal values are equal up to rounding only.
"""


def write_mnn(onnx: Path, path: Path) -> None:
    """Convert an FP32 graph for MNN. Weights that are stored in FP16 stay so.

    Raises
    ------
    ExportError
        MNN is missing, or refused the graph.
    """
    model = ir.load(onnx)
    ir.external_data.load_to_model(model)
    # Those in FP16 have a Cast, which has their names, see `export.graph.store_weights_outside`.
    half = not any(name.endswith((".weight", ".bias")) for name in model.graph.initializers)
    pool_by_signs(model)
    if half:
        in_two_halves(model)
    inlined = path.with_suffix(".inlined.onnx")
    ir.save(model, inlined)
    options = ["-f", "ONNX", "--modelFile", inlined, "--MNNModel", path, *["--fp16"] * half]
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *options], capture_output=True, text=True, check=False
    )
    inlined.unlink()
    if "No module named '_tools'" in done.stderr:
        raise ExportError("MNN is not installed: pip install -e '.[export]'")
    if not path.is_file():
        raise ExportError(f"MNN's converter failed: {one_line(done.stdout + done.stderr)}")
    converted = path.read_bytes()
    path.write_bytes(re.sub(UUID, lambda found: b"0" * len(found[0]), converted, count=1))


def pool_by_signs(model: ir.Model) -> None:
    """Say the masks of `export.served.PhasePool` and `PhaseUnpool` in numbers instead of truths.

    A truth of MNN's is an integer of 32 bits, and what chooses by it uses one core. With 1 where a
    phase is not the maximum, and 0 where it is, x times that is what the phase leaves of x, and x
    without it is what it takes: the same bits, but for values that are `NEAR` the maximum.
    """
    for split in [node for node in model.graph if node.op_type == "Split"]:
        (maximum,) = {node for node in users(split.outputs[0]) if node.op_type == "Max"}
        x = split.inputs[0].producer().inputs[0]
        pool = ir.node("MaxPool", [x], {"kernel_shape": [2, 2], "strides": [2, 2]})
        replace(model, maximum, [pool], {maximum: pool})
        masks = [node for phase in split.outputs for node in users(phase)]
        for equal in [node for node in masks if node.op_type == "Equal"]:
            part_by_sign(model, equal)


def part_by_sign(model: ir.Model, equal: ir.Node) -> None:
    """Replace a phase's mask, and the two `Where` that part values by it."""
    phase, maximum = equal.inputs
    near = add_constant(model, f"{equal.outputs[0].name}.near", np.float32(NEAR))
    margin = ir.node("Mul", [maximum, near])
    least = ir.node("Sub", [maximum, margin.outputs[0]])
    lack = ir.node("Sub", [least.outputs[0], phase])
    below = ir.node("Relu", lack.outputs)
    unequal = ir.node("Sign", below.outputs)
    taken, left = sorted(
        users(equal.outputs[0]), key=lambda node: node.inputs[1].const_value is not None
    )
    x = taken.inputs[1]
    what_is_left = ir.node("Mul", [x, unequal.outputs[0]])
    what_is_taken = ir.node("Sub", [x, what_is_left.outputs[0]])
    new = [margin, least, lack, below, unequal, what_is_left, what_is_taken]
    replace(model, taken, new, {taken: what_is_taken, left: what_is_left})
    model.graph.remove(equal, safe=True)


def in_two_halves(model: ir.Model) -> None:
    """Let a constant that FP16 rounds, of normalisation, be the sum of two that it does not.

    With FP16 weights MNN stores all constants so, and 11 bits of these cost tenths of a per cent.
    """
    for node in [node for node in model.graph if node.op_type in ("Mul", "Add")]:
        constant = node.inputs[1].const_value
        if constant is None or constant.dtype != ir.DataType.FLOAT:
            continue
        value = constant.numpy()
        high = value.astype(np.float16).astype(np.float32)
        low = (value - high).astype(np.float16).astype(np.float32)
        if not low.any():
            continue
        x = node.inputs[0]
        name = node.inputs[1].name
        first = ir.node(node.op_type, [x, add_constant(model, f"{name}.high", high)])
        rest = add_constant(model, f"{name}.low", low)
        new = [first]
        if node.op_type == "Mul":
            new.append(ir.node("Mul", [x, rest]))
            rest = new[-1].outputs[0]
        new.append(ir.node("Add", [first.outputs[0], rest]))
        replace(model, node, new, {node: new[-1]})


def users(value: ir.Value) -> list[ir.Node]:
    return [node for node, _ in value.uses()]


def replace(
    model: ir.Model, place: ir.Node, new: list[ir.Node], instead: dict[ir.Node, ir.Node]
) -> None:
    """Put new nodes where one is, and let some stand in for others, that one among them."""
    ir.convenience.replace_nodes_and_values(
        model.graph,
        place,
        list(instead),
        new,
        [node.outputs[0] for node in instead],
        [node.outputs[0] for node in instead.values()],
    )
