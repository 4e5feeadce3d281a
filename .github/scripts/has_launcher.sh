#!/usr/bin/env bash
# Fails if the wheel in dist lacks the launcher, which is optional only for people who build from source.
set -euo pipefail
python -m venv --clear .venv
.venv/bin/python -m pip install --no-deps dist/gdn_aot-*-cp310-abi3-manylinux*.whl
here=$PWD
cd "$RUNNER_TEMP" # not the checkout, from which Python would import
"$here/.venv/bin/python" -c 'import gdn_aot, gdn_aot.triton_internals._launch'
