#!/usr/bin/env bash
# Adds to dist the wheel for every other system, on which artifacts are fetched and looked at: it has no compiled code.
set -euo pipefail
CC=false bash .github/scripts/tool.sh build==1.6.1 --wheel --outdir pure # without a compiler the launcher is left out
bash .github/scripts/tool.sh wheel==0.48.0 tags --python-tag py3 --abi-tag none --platform-tag any --remove pure/*.whl
if python -m zipfile --list pure/gdn_aot-*-py3-none-any.whl | grep -E '\.(so|pyd|dylib)'; then
  echo "the wheel for every system has compiled code" >&2
  exit 1
fi
mkdir -p dist
mv pure/gdn_aot-*-py3-none-any.whl dist/
