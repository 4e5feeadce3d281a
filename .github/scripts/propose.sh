#!/usr/bin/env bash
# Opens a pull request with the records that were accepted; its text is in $RUNNER_TEMP/body.md.
set -euo pipefail
git add artifacts/tuning artifacts/numerics
if git diff --cached --quiet; then
  echo "nothing new was measured" >> "$GITHUB_STEP_SUMMARY"
  exit 0
fi
git config user.name 'github-actions[bot]'
git config user.email '41898282+github-actions[bot]@users.noreply.github.com'
git switch -c "$BRANCH"
git commit -m 'Tuning records'
gh auth setup-git
git push origin "$BRANCH"
gh pr create --title 'Tuning records' --body-file "$RUNNER_TEMP/body.md" --head "$BRANCH"
