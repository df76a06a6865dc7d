# Compiles the kernels under a sanitizer, for the two checks beside this file, which read it in; not run by itself.
#
#     compile_checked KIND PYTHON     address or thread; sets `folder`, `objects` and `flags`
#
# Objects are kept under build/ and made anew when a source, a flag or the compiler changes. They are compiled with -O1,
# side by side, and without AVX-512 where no processor here runs it: each variant takes minutes under a sanitizer.
compile_checked() {
    folder=$root/build/sanitize-$1
    case $1 in
        address) flags="-fsanitize=address,undefined -fno-sanitize-recover=all" ;;
        thread) flags=-fsanitize=thread ;;
    esac
    options="-std=gnu11 -O1 -g1 -fno-omit-frame-pointer -fPIC -fwrapv -ffp-contract=off -fno-trapping-math -pthread"
    options="$options -Wall -Wextra -Werror -DPy_LIMITED_API=0x030A0000 $flags"
    grep -qs avx512_vpopcntdq /proc/cpuinfo || options="$options -DWITHOUT_AVX512"
    include=$("$2" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    mkdir -p "$folder/objects"
    said=$("${CC:-cc}" --version | head -n 1)" $options"
    [ "$(cat "$folder/objects/flags" 2>/dev/null)" = "$said" ] || rm -f "$folder"/objects/*.o
    echo "$said" >"$folder/objects/flags"
    # The slow ones first.
    for name in avx2 scalar $(cd "$kernels" && ls -S ./*.c | sed 's|./\(.*\)\.c|\1|' | grep -v -e '^avx2$' -e '^scalar$'); do
        object=$folder/objects/$name.o
        [ -z "$(find "$kernels" \( -name '*.h' -o -name "$name.c" \) -newer "$object" 2>/dev/null || echo new)" ] ||
            echo "$name"
    done | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I NAME "${CC:-cc}" $options -I"$include" -c "$kernels/NAME.c" \
        -o "$folder/objects/NAME.o"
    objects=$(ls "$folder"/objects/*.o)
}
