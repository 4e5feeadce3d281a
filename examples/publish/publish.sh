#!/bin/sh
# Build the kernels of a model for one or more architectures, prove them, sign them, publish them, and say what a
# container would fetch. It needs no GPU. Usage: publish.sh REPO MODEL ARCH...
#   publish.sh hf://my-org/kernels qwen3.5-9b sm_90 sm_120     (HF_TOKEN may write there)
#   publish.sh ./registry qwen3.5-9b sm_120                    (a directory: the same files)
set -eu
repo=$1 model=$2
shift 2
keys=${KEYS:-keys} # the signing key stays with the publisher; servers get keyring.json
dist=${DIST:-dist}
case $repo in # what the keyring is for: of a directory, the repository that it is a copy of
hf://*) name=$repo ;;
*) name=${NAME:-hf://my-org/kernels} ;;
esac

for arch; do set -- "$@" --arch "$arch"; shift; done
gdn-aot build "$@" --model "$model" -o "$dist"
for file in "$dist"/*.tar.zst; do
    gdn-aot verify "$file"
    gdn-aot coverage "$file" --model "$model" --calls "${CALLS:-1000}" # exit 5 if a call would miss
done
[ -e "$keys/keyring.json" ] || gdn-aot keys new --repo "$name" -o "$keys"
gdn-aot publish "$dist"/*.tar.zst --repo "$repo" --key "$keys/signing.pem" --keyring "$keys/keyring.json" --create

# What each server does: it adds the keyring once, and fetches. Here both are tried in a folder that goes again.
server=$(mktemp -d)
trap 'rm -rf "$server"' EXIT
mkdir "$server/keys"
export GDN_AOT_HOME="$server/home" GDN_AOT_KEYS="$server/keys"
gdn-aot keys add "$keys/keyring.json"
gdn-aot fetch "$@" --repo "$repo" --dry-run
