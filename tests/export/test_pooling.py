"""Pooling by phases, run by ONNX Runtime, is torch's pooling to the last bit."""

import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.served import PhasePool, PhaseUnpool


class PoolThenUnpool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool, self.unpool = PhasePool(), PhaseUnpool()

    def forward(self, x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        maximum, positions = self.pool(x)
        return maximum, self.unpool(values, positions)


@pytest.fixture(scope="module", params=[torch.float32, torch.float16])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="module")
def session(dtype: torch.dtype) -> onnxruntime.InferenceSession:
    even = {2: 2 * torch.export.Dim("h"), 3: 2 * torch.export.Dim("w")}
    half = {2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.onnx.export(
        PoolThenUnpool().eval(),
        (torch.zeros(1, 3, 8, 12, dtype=dtype), torch.zeros(1, 3, 4, 6, dtype=dtype)),
        dynamic_shapes=(even, half),
        opset_version=18,
        verbose=False,
    )
    assert not [node for node in program.model.graph if node.op_type == "Cast"]
    return onnxruntime.InferenceSession(ir.to_proto(program.model).SerializeToString())


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_equals_torch_whatever_ties(
    session: onnxruntime.InferenceSession, dtype: torch.dtype, levels: int
) -> None:
    """Few levels make many ties; half of the values are cut to zero, as ReLU leaves them."""
    generator = torch.Generator().manual_seed(levels)
    x = torch.randint(-levels, levels, (1, 3, 64, 96), generator=generator).clamp(min=0).to(dtype)
    values = torch.randn(1, 3, 32, 48, generator=generator).to(dtype)
    maximum, positions = F.max_pool2d(x, 2, return_indices=True)
    names = [i.name for i in session.get_inputs()]
    found = session.run(None, dict(zip(names, (x.numpy(), values.numpy()), strict=True)))
    assert (torch.from_numpy(found[0]) - maximum).abs().max() == 0
    assert (torch.from_numpy(found[1]) - F.max_unpool2d(values, positions, 2)).abs().max() == 0
