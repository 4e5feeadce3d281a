#!/usr/bin/env bash
# Makes sure that the tests of the report page have a browser, and names it: with the variable they no longer skip.
set -euo pipefail
for name in chromium google-chrome chromium-browser; do
  if found=$(command -v "$name"); then break; fi
done
if [ -z "${found:-}" ]; then
  sudo apt-get update
  sudo apt-get install --yes --no-install-recommends chromium
  found=$(command -v chromium)
fi
"$found" --version
echo "GDN_AOT_TEST_BROWSER=$found" >> "$GITHUB_ENV"
