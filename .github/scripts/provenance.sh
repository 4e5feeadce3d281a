#!/usr/bin/env bash
# Puts BUNDLE, in which GitHub attests all artifacts of dist, beside each of them, and verifies each as people who fetch
# it do: what is signed after this was attested in this workflow, of this ref. GitHub attests what is not public with
# keys that only it knows of: its bundles are not published.
set -euo pipefail
if [ "$VISIBILITY" != public ]; then
  echo "this repository is $VISIBILITY: who built the artifacts is attested to those alone who may see it" >> "$GITHUB_STEP_SUMMARY"
  exit 0
fi
for file in dist/*.tar.zst; do
  cp "$BUNDLE" "${file%.tar.zst}.sigstore.json"
  gdn-aot verify "$file" --provenance "$GITHUB_REPOSITORY" --ref "$GITHUB_REF"
done
