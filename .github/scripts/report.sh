#!/usr/bin/env bash
# Writes the page about what is in dist, which is published beside it.
set -euo pipefail
gdn-aot report dist/*.tar.zst -o dist/report.html
