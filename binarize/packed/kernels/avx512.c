/* AVX-512 with VPOPCNTDQ: 4 pixels x 32 filters, the popcounts halved by a carry-save adder.
 *
 * Two words a step go through a full adder whose third input is the running parity s (bit by bit, 512 at once):
 *
 *     t  = s ^ x0 ^ w0          t' = t ^ x1 ^ w1        three-input xor: the products' xor costs nothing
 *     carry = majority = t ? ~t' : s                    (t and t' differ exactly where the second product is 1)
 *     total += popcount(carry),  s = t'
 *
 * and at the end popcount = 2 * total + popcount(s): 2.5 instructions a word instead of 3. */
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vpopcntdq,popcnt")))
#define VARIANT(name) name##_avx512
#define LANES 32
#define MASKED_LANES 32
#define TILE_PIXELS 4
#define FLOAT_LANES 32
#define FLOAT_PIXELS 8
#define ALWAYS static inline __attribute__((always_inline)) TARGET

enum { PREFETCH = 2048 }; /* words ahead */
enum { XOR3 = 0x96, CARRY = 0x74, XOR_AND = 0x28 }; /* truth tables of vpternlog, first input the high bit */

ALWAYS uint32_t less_f32(const float *a, const float *b)
{
    const __mmask16 low = _mm512_cmp_ps_mask(_mm512_loadu_ps(a), _mm512_loadu_ps(b), _CMP_LT_OQ);
    const __mmask16 high = _mm512_cmp_ps_mask(_mm512_loadu_ps(a + 16), _mm512_loadu_ps(b + 16), _CMP_LT_OQ);
    return (uint32_t)_mm512_kunpackw(high, low);
}

ALWAYS uint32_t less_i32(const int32_t *a, const int32_t *b)
{
    const __mmask16 low = _mm512_cmplt_epi32_mask(_mm512_loadu_si512(a), _mm512_loadu_si512(b));
    const __mmask16 high = _mm512_cmplt_epi32_mask(_mm512_loadu_si512(a + 16), _mm512_loadu_si512(b + 16));
    return (uint32_t)_mm512_kunpackw(high, low);
}

ALWAYS void add_pair(__m512i *parity, __m512i *total, __m512i x0, __m512i w0, __m512i x1, __m512i w1)
{
    const __m512i t = _mm512_ternarylogic_epi32(x0, *parity, w0, XOR3);
    const __m512i next = _mm512_ternarylogic_epi32(x1, t, w1, XOR3);
    const __m512i carry = _mm512_ternarylogic_epi32(*parity, t, next, CARRY);
    *parity = next;
    *total = _mm512_add_epi32(*total, _mm512_popcnt_epi32(carry));
}

/* w: [words][32 lanes] */
ALWAYS void dense_tile(const uint32_t *const *x, const int32_t *offsets, int64_t words, const uint32_t *w,
                       const int pixels, int32_t *pops)
{
    __m512i parity[2 * TILE_PIXELS], total[2 * TILE_PIXELS];
#pragma GCC unroll 8
    for (int i = 0; i < 2 * pixels; i++)
        parity[i] = total[i] = _mm512_setzero_si512();
    int64_t k = 0;
#pragma GCC unroll 2
    for (; k + 2 <= words; k += 2, w += 64) {
        __m512i w0 = _mm512_loadu_si512(w), w0b = _mm512_loadu_si512(w + 16);
        __m512i w1 = _mm512_loadu_si512(w + 32), w1b = _mm512_loadu_si512(w + 48);
        /* In registers: the compiler would load them again for every pixel, and loads become the limit. */
        __asm__("" : "+v"(w0), "+v"(w0b), "+v"(w1), "+v"(w1b));
        if (pixels == 1) /* weights are read once, from far away: the processor's own prefetching ends with a page */
#pragma GCC unroll 4
            for (int line = 0; line < 4; line++)
                _mm_prefetch((const char *)(w + PREFETCH + 16 * line), _MM_HINT_T0);
        const int64_t first = offsets[k], second = offsets[k + 1];
#pragma GCC unroll 4
        for (int i = 0; i < pixels; i++) {
            const __m512i x0 = _mm512_set1_epi32((int)x[i][first]), x1 = _mm512_set1_epi32((int)x[i][second]);
            add_pair(&parity[2 * i], &total[2 * i], x0, w0, x1, w1);
            add_pair(&parity[2 * i + 1], &total[2 * i + 1], x0, w0b, x1, w1b);
        }
    }
    if (k < words) { /* the odd word, with nothing as its partner */
        const __m512i w0 = _mm512_loadu_si512(w), w0b = _mm512_loadu_si512(w + 16);
        const __m512i zero = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int i = 0; i < pixels; i++) {
            const __m512i x0 = _mm512_set1_epi32((int)x[i][offsets[k]]);
            add_pair(&parity[2 * i], &total[2 * i], x0, w0, zero, zero);
            add_pair(&parity[2 * i + 1], &total[2 * i + 1], x0, w0b, zero, zero);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * pixels; i++)
        _mm512_store_si512(pops + 16 * i, _mm512_add_epi32(_mm512_slli_epi32(total[i], 1),
                                                           _mm512_popcnt_epi32(parity[i])));
}

/* w: [words][weights, mask][32 lanes] */
ALWAYS void masked_tile(const uint32_t *const *x, const int32_t *offsets, int64_t words, const uint32_t *w,
                        const int pixels, int32_t *pops)
{
    __m512i total[2 * TILE_PIXELS];
#pragma GCC unroll 8
    for (int i = 0; i < 2 * pixels; i++)
        total[i] = _mm512_setzero_si512();
    for (int64_t k = 0; k < words; k++, w += 64)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const __m512i weight = _mm512_loadu_si512(w + 16 * half);
            const __m512i mask = _mm512_loadu_si512(w + 32 + 16 * half);
#pragma GCC unroll 4
            for (int i = 0; i < pixels; i++) {
                const __m512i word = _mm512_set1_epi32((int)x[i][offsets[k]]);
                const __m512i product = _mm512_ternarylogic_epi32(word, weight, mask, XOR_AND);
                total[2 * i + half] = _mm512_add_epi32(total[2 * i + half], _mm512_popcnt_epi32(product));
            }
        }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * pixels; i++)
        _mm512_store_si512(pops + 16 * i, total[i]);
}

/* w: [rows * run][32 lanes] */
ALWAYS void float_tile(const float *const *x, int64_t row_step, int64_t rows, int64_t run, const float *w,
                       const float *bias, const int pixels, float *out)
{
    __m512 low[FLOAT_PIXELS], high[FLOAT_PIXELS];
    const float *at[FLOAT_PIXELS];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) {
        at[i] = x[i];
        low[i] = _mm512_loadu_ps(bias);
        high[i] = _mm512_loadu_ps(bias + 16);
    }
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t k = 0; k < run; k++, w += FLOAT_LANES) {
            const __m512 w0 = _mm512_loadu_ps(w), w1 = _mm512_loadu_ps(w + 16);
#pragma GCC unroll 8
            for (int i = 0; i < pixels; i++) {
                const __m512 value = _mm512_set1_ps(at[i][k]);
                low[i] = _mm512_fmadd_ps(value, w0, low[i]);
                high[i] = _mm512_fmadd_ps(value, w1, high[i]);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < pixels; i++)
            at[i] += row_step;
    }
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) {
        _mm512_store_ps(out + i * FLOAT_LANES, low[i]);
        _mm512_store_ps(out + i * FLOAT_LANES + 16, high[i]);
    }
}

#include "engine.h"
#include "rows.h"
#include "floats.h"

const Variant variant_avx512 = {"avx512",      "lanes",      LANES,        MASKED_LANES, FLOAT_LANES,
                                pack_avx512,   window_avx512, dense_avx512, masked_avx512, rows_avx512,
                                filters_avx512, floats_avx512, pooled_avx512};
#endif
