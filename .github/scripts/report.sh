#!/usr/bin/env bash
# Writes the page about what is in dist, which is published beside it.
set -euo pipefail
gdn-aot report dist/*.tar.zst -o dist/report.html
size=$(wc -c < dist/report.html)
if [ "$size" -gt 10000000 ]; then
  echo "::warning::dist/report.html has $size bytes, more than 10000000: see docs/adr/0031-the-report-page.md"
fi
