#!/bin/sh
# Runs tests of the packed layers through Python with an extension built under sanitizers; not part of the test suite.
#
#     tests/kernels/check_extension.sh                  address and undefined-behaviour sanitizers
#     tests/kernels/check_extension.sh thread           thread sanitizer: two Python threads and the pool
#
# The build goes into a folder of its own under build/, beside a copy of the package; the installed one is left alone.
# PYTHON is the interpreter, TESTS what pytest is given, CASES how many cases the drawn tests draw, FUZZ how many calls
# with odd arguments follow.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
kernels=$root/binarize/kernels/c
kind=${1:-address} python=${PYTHON:-$root/.venv/bin/python}
compiler=${CC:-cc}
. "$root/tests/kernels/compile_checked.sh"
case $kind in
    address) library=libasan.so ;;
    thread) library=libtsan.so ;;
    *) echo "unknown check '$kind'; expected address or thread" >&2; exit 2 ;;
esac
compile_checked "$kind" "$python"
rm -rf "$folder/package"
mkdir -p "$folder/package"
cp -R "$root/binarize" "$folder/package/binarize"
cp -R "$root/rules" "$folder/package/rules" # the schemes lie beside the package
$compiler -shared -pthread $flags $objects -lm -o "$folder/package/binarize/kernels/_native.abi3.so"
# With the C++ library, whose exceptions the sanitizer wraps: it must find it when it starts.
library="$("$compiler" -print-file-name="$library") $("$compiler" -print-file-name=libstdc++.so.6)"
cd "$folder" # no package of that name in the current folder
checked() {
    env LD_PRELOAD="$library" PYTHONPATH="$folder/package:$root/tests" PYTHONMALLOC=malloc OMP_NUM_THREADS=1 \
        ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
        TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 BINARIZE_KERNEL_CASES="${CASES:-20}" "$@"
}
# Otherwise nothing would be checked.
checked "$python" -c 'import sys
from binarize.kernels import _native
assert _native.__file__.startswith(sys.argv[1]), _native.__file__
print("checking", _native.__file__)' "$folder"
if [ "$kind" = thread ]; then
    exec setarch -R env LD_PRELOAD="$library" PYTHONPATH="$folder/package" OMP_NUM_THREADS=1 \
        TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 "$python" "$root/tests/kernels/two_threads.py"
fi
[ -z "${TESTS:-}" ] || TESTS=$(for test in $TESTS; do case $test in /*) echo "$test" ;; *) echo "$root/$test" ;; esac; done)
checked "$python" -m pytest -q -p no:cacheprovider -c "$root/setup.cfg" --rootdir "$root" -o pythonpath=tests \
    ${TESTS:-$root/tests/packed/test_any_window.py $root/tests/kernels/buffers/test_arguments.py \
    $root/tests/kernels/test_native.py $root/tests/packed/fused/test_float_conv.py $root/tests/packed/fused/test_fuse.py \
    $root/tests/kernels/test_elementwise.py}
[ "${FUZZ:-1000}" = 0 ] || checked "$python" "$root/benchmarks/fuzz_operators.py" --calls "${FUZZ:-1000}"
