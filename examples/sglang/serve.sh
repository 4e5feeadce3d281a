#!/usr/bin/env bash
# Fetch the kernels that fit this machine, say what SGLang's processes will find, and serve.
# Usage: serve.sh REPO MODEL [options of sglang.launch_server]
#   serve.sh hf://my-org/kernels Qwen/Qwen3.5-9B --tp 2
set -euo pipefail
repo=$1 model=$2
shift 2

gdn-aot fetch --repo "$repo" ${ARCH:+--arch "$ARCH"} --provider sglang --optional
gdn-aot doctor || true # what is in the way, and what each kernel of this SGLang is served from
exec python3 -m sglang.launch_server --model-path "$model" "$@"
