#!/usr/bin/env bash
# Makes .venv on a machine with a GPU: the provider and the Triton that REQUIREMENTS pins, and the CUDA build of torch
# that asks for this Triton, where the pins have the CPU build.
set -euo pipefail
grep -E '^(triton|fla-core|vllm|sglang)==' "$REQUIREMENTS" > "$RUNNER_TEMP/pins.txt"
python -m venv --clear .venv
.venv/bin/python -m pip install -r "$RUNNER_TEMP/pins.txt" torch -e .
echo "$PWD/.venv/bin" >> "$GITHUB_PATH"
