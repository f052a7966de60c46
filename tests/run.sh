#!/bin/sh
# Install everything into .venv once, then run the linter and all tests.
#   sh tests/run.sh [arguments of pytest]
set -eu
cd "$(dirname "$0")/.."
# The version of torch that the tolerances were measured with.
sh setup.sh torch==2.13.0 -e '.[client,page,server,export,evaluate,tensorrt-rtx,benchmarks,dev]'
.venv/bin/python -m ruff check .
.venv/bin/python -m mypy
exec .venv/bin/python -m pytest "$@"
