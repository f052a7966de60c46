"""Reading and writing weights: our safetensors files and mmediting's `.pth` files.

Ours hold the tensors under mmediting's names, as FP16 or FP32, and facts about them (stage, data,
scores) as text in the metadata. mmediting's hold a `state_dict` with `meta` and maybe `optimizer`
beside it, in torch's zip or older format (mmediting's tools/publish_model.py). VGG16's, which
training starts from, are torchvision's `.pth` or an npz.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from matting.files import write_whole
from train.network import DeepImageMatting

SCORE = "validation SAD"
"""The fact about weights that tells how good they were in their own run."""
FEW = 4


class CheckpointError(ValueError):
    """A file is not a checkpoint of this network; the message lists what is wrong."""


def load_checkpoint(path: str | Path) -> DeepImageMatting:
    """Return the network of a checkpoint, in evaluation mode, as FP32 on the CPU.

    The stage is found out from the names: without `refiner.` tensors it is stage 1's network.

    Raises
    ------
    CheckpointError
        The file cannot be read, or tensors are missing, extra or misshapen, or hold no numbers.
    """
    state = read_state(Path(path))
    with torch.device("meta"):  # without drawing weights that are replaced at once
        network = DeepImageMatting(refiner=any(name.startswith("refiner.") for name in state))
    complaints = differences(network.state_dict(), state)
    if complaints:
        raise CheckpointError(
            f"{path}: not Deep Image Matting as mmediting names it: " + "; ".join(complaints)
        )
    if broken := [name for name, value in state.items() if not value.isfinite().all()]:
        raise CheckpointError(
            f"{path}: NaN or infinity in {len(broken)} of {len(state)} tensors ({broken[0]}), as "
            "after a training that failed; take an earlier file"
        )
    as_fp32 = {"dtype": torch.float32, "memory_format": torch.contiguous_format, "copy": True}
    network.load_state_dict({n: value.to(**as_fp32) for n, value in state.items()}, assign=True)
    return network.eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a file, whatever a `.pth` has wrapped them in."""
    if not path.is_file():
        found = "is a folder; give a file in it" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {found}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    content = load(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(
            f"{path}: expected named tensors, or a `state_dict` of them; found "
            f"{type(content).__name__}"
        )
    return without_wrapper(content)


def without_wrapper(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without a prefix that all names have before mmediting's, or VGG16's, own.

    "module." comes from training on several GPUs, "network." from a `last.ckpt` of ours.
    """
    found = (re.match(r"(.*?)(?:backbone|refiner|features)\.", name) for name in state)
    wrappers = {match[1] for match in found if match}
    if len(wrappers) != 1:
        return dict(state)
    return {name.removeprefix(*wrappers): value for name, value in state.items()}


def load(path: Path) -> object:
    """Load what torch saved, if it holds only tensors, numbers, text and containers of these.

    Or what NumPy saved, an npz of numbers.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays}
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        if named := re.search(r"GLOBAL (\w[\w.]*) ", str(error)):
            raise CheckpointError(
                f"{path}: holds {named[1]}, and what is not tensors, numbers or text is not "
                "loaded, because it could run code; save the state_dict alone"
            ) from error
        raise CheckpointError(
            f"{path}: not a checkpoint, or cut short ({path.stat().st_size} bytes); expected "
            "torch's .pth, .npz or .safetensors; copy it again"
        ) from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the named tensors and the metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # not iterable itself
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from error


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Say in words how named tensors differ from the expected ones in name or shape.

    Of each kind of difference the first few are named.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {tuple(found[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    kinds = {"missing": missing, "extra": extra, "misshapen": misshapen}
    return [
        f"{len(names)} {kind}: {', '.join(names[:FEW])}" + ", ..." * (len(names) > FEW)
        for kind, names in kinds.items()
        if names
    ]


def save_checkpoint(
    network: DeepImageMatting,
    path: str | Path,
    facts: Mapping[str, object],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the network's tensors as safetensors, whole or not at all.

    Parameters
    ----------
    facts : mapping
        What should be known about the weights: training data, recipe, scores. Stored as JSON text
        per key; `stage` and `normalisation` are added where they lack (the network alone does not
        tell stage 2 from 3).
    dtype : torch.dtype
        How the tensors are stored. Half the size as FP16, and the same alpha to within rounding.
    """
    path = Path(path)
    facts = {
        "stage": 1 if network.refiner is None else "2 or 3",
        "normalisation": "RGB in 0..1, ImageNet mean and standard deviation; trimap in 0..1",
        **facts,
    }
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    state = {name: value.to(dtype).contiguous() for name, value in network.state_dict().items()}
    # Not save_file, which makes a file that only its owner may read.
    write_whole(path, save(state, metadata=metadata))


def read_facts(path: Path) -> dict[str, object]:
    """Return the facts that `save_checkpoint` wrote; other programs' metadata may be no JSON."""
    facts = {}
    for name, text in read_safetensors(path)[1].items():
        with suppress(json.JSONDecodeError):
            facts[name] = json.loads(text)
    return facts
