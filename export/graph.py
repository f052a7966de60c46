"""From a network to an ONNX graph whose weights lie in a safetensors file beside it."""

import copy
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from export.served import OPSET, ServedMatting
from train.network import DeepImageMatting

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}


def build_graph(network: DeepImageMatting, precision: str) -> ir.Model:
    """Export a network with the wire contract around it (see `export.served`).

    Parameters
    ----------
    network : DeepImageMatting
        Is left as it is.
    precision : "fp32" or "fp16"
        What the network computes in. FP16 is in the graph: half weights and activations, so that it
        means the same to every runtime. Normalisation and the last sigmoid stay FP32, see there.

    Returns
    -------
    onnx_ir.Model
        Inputs `image` and `trimap`, output `alpha`; N, H and W are dynamic.
    """
    served = ServedMatting(copy.deepcopy(network).to(PRECISIONS[precision])).eval()
    # Traced at a size that is no multiple of 32, so that nothing can depend on one.
    example = {
        "image": torch.zeros(2, 50, 70, 3, dtype=torch.uint8),
        "trimap": torch.zeros(2, 50, 70, 1, dtype=torch.uint8),
    }
    axes = {0: "N", 1: "H", 2: "W"}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both inputs share their axes, which is meant
        program = torch.onnx.export(
            served,
            kwargs=example,
            dynamic_shapes={"image": axes, "trimap": axes},
            output_names=["alpha"],
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model
    drop_notes(model)
    take_sizes_by_gather(model)
    for name in [name for name in model.graph.initializers if name.startswith("network.")]:
        model.graph.initializers[name].name = name.removeprefix("network.")
    return model


def drop_notes(model: ir.Model) -> None:
    """Drop the exporter's notes on where everything comes from, and on the sizes within.

    This machine's paths are among them: without these the same network gives the same bytes
    wherever it is exported. The sizes are those of one picture, see `export.served`.
    """
    graph = model.graph
    results = [value for node in graph for value in node.outputs]
    for part in (graph, *graph, *graph.inputs, *graph.initializers.values(), *results):
        part.metadata_props.clear()
    for value in set(results) - set(graph.outputs):
        value.shape = None


def take_sizes_by_gather(model: ir.Model) -> None:
    """Replace every Shape of one axis by a Shape of all and a Gather.

    TensorRT 8.6's parser does not know Shape's attributes and takes all sizes for the one.
    """
    for node in [node for node in model.graph if node.op_type == "Shape"]:
        axis = node.attributes["start"].as_int()
        index = add_constant(model, f"{node.outputs[0].name}.axis", np.array([axis], np.int64))
        shape = ir.node("Shape", [node.inputs[0]])
        size = ir.node("Gather", [shape.outputs[0], index], {"axis": 0})
        ir.convenience.replace_nodes_and_values(
            model.graph, node, [node], [shape, size], node.outputs, size.outputs
        )


def add_constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Add a constant to a graph, to be an input of its nodes."""
    constant = ir.Value(name=name, const_value=ir.tensor(array))
    model.graph.register_initializer(constant)
    return constant


def store_weights_outside(model: ir.Model, weights: Path) -> None:
    """Let the graph's parameters point into a safetensors file with the same tensors.

    Weights are stored once, in a file that `train.checkpoint.load_checkpoint` reads too. Where the
    file is FP16 and the graph computes in FP32, a Cast follows each; runtimes fold it at loading.
    """
    with weights.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_size))
    graph = model.graph
    dtypes = {"F16": ir.DataType.FLOAT16, "F32": ir.DataType.FLOAT}
    for name, value in [(n, v) for n, v in graph.initializers.items() if n in header]:
        start, end = header[name]["data_offsets"]
        dtype = dtypes[header[name]["dtype"]]
        tensor = ir.ExternalTensor(
            weights.name,
            8 + header_size + start,
            end - start,
            dtype,
            shape=value.shape,
            name=name,
            base_dir=weights.parent,
        )
        if dtype != value.dtype:
            stored = ir.Value(name=f"{name}.stored", shape=value.shape, type=ir.TensorType(dtype))
            stored.const_value = tensor
            cast = ir.node("Cast", [stored], attributes={"to": value.dtype}, name=f"{name}.cast")
            cast.outputs[0].shape, cast.outputs[0].dtype = value.shape, value.dtype
            value.replace_all_uses_with(cast.outputs[0])
            graph.initializers.pop(name)
            cast.outputs[0].name = name
            graph.register_initializer(stored)
            graph.insert_before(graph[0], cast)
        else:
            value.const_value = tensor


def save_graph(model: ir.Model, path: Path) -> None:
    """Write the graph; parameters that point into another file stay there."""
    path.write_bytes(ir.to_proto(model).SerializeToString())
