#!/usr/bin/env bash
# Runs a Python tool in an environment of its own: tool.sh build==1.6.1 --sdist runs python -m build --sdist.
set -euo pipefail
python -m venv .venv
.venv/bin/python -m pip install "$1"
.venv/bin/python -m "${1%%==*}" "${@:2}"
