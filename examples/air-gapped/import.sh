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
tar -C "$GDN_AOT_HOME" -o -xf "$1"  # as files of whoever runs this: servers refuse those of strangers
gdn-aot cache verify
gdn-aot list --installed
