#!/bin/sh
# With a network: fetch into a new store and pack it.
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
tar -C "$GDN_AOT_HOME" --exclude=.lock -cf "$archive" store
sha256sum "$archive"
