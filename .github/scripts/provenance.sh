#!/usr/bin/env bash
# Verifies that each artifact of dist was attested in this workflow, of this ref, before anything is signed.
#
# Of a public repository BUNDLE, in which GitHub attests all of them, is put beside each, and verified as people who
# fetch it do. GitHub attests what is not public with keys that only it knows of: there gh asks GitHub, with GH_TOKEN,
# and no bundle is published.
set -euo pipefail
workflow="$GITHUB_REPOSITORY/.github/workflows/artifacts.yml"
for file in dist/*.tar.zst; do
  if [ "$VISIBILITY" = public ]; then
    cp "$BUNDLE" "${file%.tar.zst}.sigstore.json"
    gdn-aot verify "$file" --provenance "$GITHUB_REPOSITORY" --ref "$GITHUB_REF"
  else
    gh attestation verify "$file" --repo "$GITHUB_REPOSITORY" --signer-workflow "$workflow" --source-ref "$GITHUB_REF"
  fi
done
if [ "$VISIBILITY" != public ]; then
  echo "this repository is ${VISIBILITY:-not known to be public}: who built the artifacts is attested to those alone who may see it" >> "$GITHUB_STEP_SUMMARY"
fi
