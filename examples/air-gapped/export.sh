#!/bin/sh
# With a network: fetch into a new store and pack it, with the keyrings that the registry had and this machine verified.
#
#   ./export.sh gdn-aot-store.tar --arch sm_120 --provider fla --provider-version 0.6.0 --triton 3.6.0
#
# Everything after the name of the archive goes to gdn-aot fetch. Name what the other machine has; --locked takes it
# from gdn-aot.lock.
set -eu

archive=$1
shift
GDN_AOT_HOME=$(mktemp -d)
export GDN_AOT_HOME
trap 'rm -rf "$GDN_AOT_HOME"' EXIT

gdn-aot fetch "$@"
set -- store
for keyrings in "$GDN_AOT_HOME"/trust/*.jsonl; do
  [ ! -f "$keyrings" ] || set -- "$@" "trust/${keyrings##*/}"  # what was seen or verified here counts for nobody else
done
tar -C "$GDN_AOT_HOME" --exclude=.lock -cf "$archive" "$@"
sha256sum "$archive"
