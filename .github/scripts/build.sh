#!/usr/bin/env bash
# Builds the row IDENTIFIER of the file MATRIX into dist, with the report of the build beside it.
set -euo pipefail
mkdir -p dist
gdn-aot build --only "$IDENTIFIER" --matrix "$MATRIX" -o dist --json > "dist/$IDENTIFIER.build.json"
