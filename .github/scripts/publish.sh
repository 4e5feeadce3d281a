#!/usr/bin/env bash
# Verifies what is in dist and publishes it to GDN_AOT_REPO under TAG; with --dry-run it is only compared with what is
# there. What is there under the same identifiers was published under an earlier tag, which keeps it: --replace moves
# the branch on. A tag that is there with other content is refused.
set -euo pipefail
: "${GDN_AOT_REPO:?set the variable GDN_AOT_REPO of the environment hub, as hf://org/name}"
command=(gdn-aot publish dist/*.tar.zst --repo "$GDN_AOT_REPO" --tag "${TAG#artifacts-}" --replace --report dist/report.html)
if [ "${1:-}" = --dry-run ]; then
  "${command[@]}" --dry-run
else
  "${command[@]}" --json > published.json
  python .github/scripts/summary.py --published published.json
fi
