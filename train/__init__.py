"""The network and how it learns: PyTorch, on top of `matting`, below `export`."""

import importlib.util
import sys

# Python calls a program so while it looks for its module, in here.
if sys.argv[:1] == ["-m"] and not importlib.util.find_spec("torch"):
    print("error: torch is not installed: pip install -e '.[train]'", file=sys.stderr)
    sys.exit(2)
