#!/bin/sh
# Install everything into .venv once, then run the linters and all tests, four at a time.
#   sh tests/run.sh [arguments of pytest; --numprocesses 0: one at a time]
set -eu
cd "$(dirname "$0")/.."
# What tests import is compiled once, not in each of their many processes.
unset PYTHONDONTWRITEBYTECODE
# The version of torch that the tolerances were measured with.
sh setup.sh torch==2.13.0 -e '.[client,page,server,export,evaluate,tensorrt-rtx,benchmarks,dev]'

# A clock that jumps: Debian's package, unpacked into .venv without root. Where this fails, the tests
# that need it are skipped.
fetch_faketime() {
    mkdir -p .venv/faketime/partial && cd .venv/faketime/partial || return
    if ! apt-get download libfaketime; then
        mkdir -p state/lists/partial cache/archives/partial
        set -- -o "Dir::State=$PWD/state" -o "Dir::Cache=$PWD/cache"
        apt-get "$@" update && apt-get "$@" download libfaketime
    fi
    dpkg-deb -x libfaketime_*.deb .. && cd .. && rm -rf partial
}

[ -d .venv/faketime ] || (fetch_faketime) >/dev/null 2>&1 || rm -rf .venv/faketime
.venv/bin/python -m ruff check .
# PyTorch's threads would wait for each other.
export OMP_NUM_THREADS=1
# To compile pymatting takes a minute, to run its few lines on small pictures as they are seconds.
export NUMBA_DISABLE_JIT=1
# What tests import is compiled by one process beside mypy: after an installation each of four that
# begin at once would compile all of it. A test that cannot be collected is told by the run below.
.venv/bin/python -m pytest --collect-only -qq "$@" >/dev/null 2>&1 &
trap "kill $! 2>/dev/null || true" EXIT
.venv/bin/python -m mypy
wait
trap - EXIT
# Much of their time is waiting for servers: four keep two cores busy, and take 10 GB of memory.
# The files in their own order (see tests/conftest.py), not those with the most tests first.
exec .venv/bin/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
