#!/usr/bin/env bash
# Replays random traffic of the row's MODELS and TP against its artifact in dist; another run replays other traffic.
set -euo pipefail
gdn-aot coverage "dist/gdn-aot-$IDENTIFIER.tar.zst" --model "$MODELS" --tp "$TP" --calls 500 \
  --seed "$GITHUB_RUN_NUMBER" --json > "dist/$IDENTIFIER.coverage.json"
