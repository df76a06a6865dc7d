#!/bin/sh
# Checks the kernels without Python; not part of the test suite.
#
#     tests/packed/check_kernels.sh                  address and undefined-behaviour sanitizers
#     tests/packed/check_kernels.sh thread           thread sanitizer
#     tests/packed/check_kernels.sh aarch64          NEON: needs gcc-aarch64-linux-gnu and qemu-user
#
# CASES and SEED choose how many convolutions are drawn and which.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernels=$here/../../binarize/packed/kernels
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
compiler=${CC:-cc} runner=
case ${1:-address} in
    address) flags="-fsanitize=address,undefined -fno-sanitize-recover=all" ;;
    thread) flags=-fsanitize=thread ;;
    aarch64) flags=-static compiler=aarch64-linux-gnu-gcc runner=qemu-aarch64 ;;
    *) echo "unknown check '$1'; expected address, thread or aarch64" >&2; exit 2 ;;
esac
files=
for file in "$kernels"/*.c; do # all but the one that needs Python
    [ "${file##*/}" = module.c ] || files="$files $file"
done
$compiler -std=gnu11 -O2 -g -ffp-contract=off -fno-trapping-math -pthread -Wall -Wextra -Werror $flags -I"$kernels" \
    "$here/check_kernels.c" $files -lm -o "$folder/check"
ASAN_OPTIONS=detect_leaks=0 $runner "$folder/check" "${CASES:-200}" "${SEED:-1}"
