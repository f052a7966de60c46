#!/bin/sh
# Set up .venv once (about 270 MB to download), then matte the shipped photograph through a real
# Triton server.
#   sh demo/run.sh [-o DIR] [--keep]
set -eu
cd "$(dirname "$0")/.."
sh setup.sh -e '.[client,server]'
exec .venv/bin/python -m demo "$@"
