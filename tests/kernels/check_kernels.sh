#!/bin/sh
# Checks the kernels without Python; not part of the test suite.
#
#     tests/kernels/check_kernels.sh                  address and undefined-behaviour sanitizers
#     tests/kernels/check_kernels.sh thread           thread sanitizer
#     tests/kernels/check_kernels.sh aarch64          NEON: needs gcc-aarch64-linux-gnu and qemu-user
#
# CASES and SEED choose how many convolutions are drawn and which.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/tests/kernels kernels=$root/binarize/kernels/c
kind=${1:-address} compiler=${CC:-cc} runner=
. "$here/compile_checked.sh"
case $kind in
    address | thread) compile_checked "$kind" "${PYTHON:-$root/.venv/bin/python}" ;;
    aarch64)
        flags=-static compiler=aarch64-linux-gnu-gcc runner=qemu-aarch64 folder=$root/build/aarch64
        mkdir -p "$folder"
        objects=$(ls "$kernels"/*.c) ;;
    *) echo "unknown check '$1'; expected address, thread or aarch64" >&2; exit 2 ;;
esac
files=
for file in $objects; do # all but the one that needs Python
    case ${file##*/} in module.*) ;; *) files="$files $file" ;; esac
done
$compiler -std=gnu11 -O2 -g -ffp-contract=off -fno-trapping-math -pthread -Wall -Wextra -Werror $flags -I"$kernels" \
    "$here/check_kernels.c" $files -lm -o "$folder/check"
ASAN_OPTIONS=detect_leaks=0 $runner "$folder/check" "${CASES:-200}" "${SEED:-1}"
