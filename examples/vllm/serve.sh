#!/usr/bin/env bash
# Fetch the kernels that fit this machine, serve with vLLM, and say where the seconds of the start went.
# Usage: serve.sh REPO MODEL [options of vllm serve]
#   serve.sh hf://my-org/kernels Qwen/Qwen3.5-9B --tensor-parallel-size 2
set -euo pipefail
repo=$1
shift
log=${LOG:-start.log}

python -c 'import vllm' 2>/dev/null || {
    echo "vLLM is not installed in the environment of $(command -v python): activate the one that has it" >&2
    exit 1
}
gdn-aot fetch --repo "$repo" ${ARCH:+--arch "$ARCH"} --provider vllm --optional
# vLLM finds the plugin by itself; this line shows here, before a model is loaded, what every process of it will say.
python -c 'from vllm.plugins import load_general_plugins; load_general_plugins()'

status=0
GDN_AOT_START_REPORT=1 vllm serve "$@" 2>&1 | tee "$log" || status=$?
gdn-aot doctor --start "$log" || true
exit $status
