#!/bin/sh
# Without a network: unpack a store beside or into what is there, and check every byte.
#
#   GDN_AOT_HOME=/opt/gdn-aot ./import.sh gdn-aot-store.tar
#
# Not while another gdn-aot writes to this store: tar does not take its lock. Servers may run.
set -eu

: "${GDN_AOT_HOME:?name the directory of the store}"
mkdir -p "$GDN_AOT_HOME"
umask 022
carried=$(mktemp -d)
trap 'rm -rf "$carried"' EXIT
tar -C "$carried" -o --exclude=store -xf "$1"
tar -C "$GDN_AOT_HOME" -o --exclude=trust -xf "$1"  # as files of whoever runs this: servers refuse those of strangers
for keyrings in "$carried"/trust/*.jsonl; do  # newer ones are added to those of here: what these revoke stays revoked
  if [ -f "$keyrings" ] && [ ! -L "$keyrings" ] && [ ! -L "$carried/trust" ]; then
    there=$GDN_AOT_HOME/trust/${keyrings##*/}
    mkdir -p "$GDN_AOT_HOME/trust"
    touch "$there"
    { cat "$there"; grep -vxF -f "$there" "$keyrings" || :; } > "$there.new"
    mv "$there.new" "$there"
  fi
done
gdn-aot cache verify
gdn-aot list --installed
