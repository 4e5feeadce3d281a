#!/bin/sh
# With a network: copy a repository of the Hub onto a disk. The copy is a registry like any other.
#
#   ./mirror.sh gdn-aot/kernels v1 /media/stick/kernels
#
# Without a network:
#
#   gdn-aot list --repo /media/stick/kernels
#   gdn-aot fetch --repo /media/stick/kernels
set -eu

hf download "$1" --revision "$2" --local-dir "$3"
gdn-aot list --repo "$3"
