#!/usr/bin/env bash
# Measures what the tuning record of a row lacks; everything again if AFRESH is true.
set -euo pipefail
if [ "$AFRESH" = true ]; then rm -rf "artifacts/tuning/${ARCH:?}/"; fi
gdn-aot tune --provider "$PROVIDER" --arch "$ARCH" --model "$MODELS" --tp "$TP" --budget "$BUDGET" --resume
