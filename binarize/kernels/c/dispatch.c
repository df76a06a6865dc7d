/* Which variants this processor can run, best first. */
#include "kernels.h"

int available_variants(const Variant **found)
{
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("popcnt"))
        return 0;
#ifndef WITHOUT_AVX512 /* what no processor here runs, takes minutes to compile under sanitizers */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vpopcntdq"))
        found[count++] = &variant_avx512;
#endif
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found[count++] = &variant_avx2;
#elif defined(__aarch64__)
    found[count++] = &variant_neon;
#endif
    found[count++] = &variant_scalar;
    return count;
}
