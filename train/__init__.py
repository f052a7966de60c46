"""The network and how it learns: PyTorch, on top of `matting`, below `export`."""

import importlib.util
import sys

# The program's name while Python looks for the module of a `python -m train...`.
if sys.argv[:1] == ["-m"] and not importlib.util.find_spec("torch"):
    print("error: torch is not installed: pip install -e '.[train]'", file=sys.stderr)
    sys.exit(2)
