#!/usr/bin/env bash
# Makes .venv from the pins of REQUIREMENTS and nothing else, and puts it on the path of the steps that follow. This
# checkout is in it, editable, so that an artifact names the commit that it was built from.
set -euo pipefail
python -m venv .venv
.venv/bin/python -m pip install --no-deps -r "$REQUIREMENTS"
.venv/bin/python -m pip install --no-deps -e .
echo "$PWD/.venv/bin" >> "$GITHUB_PATH"
