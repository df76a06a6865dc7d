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

#if defined(__x86_64__) && !defined(WITHOUT_AVX512)
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
enum { XOR_AND = 0x28 }; /* truth tables of vpternlog, first input the high bit */

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

/* Two words of a pixel and their weights: parity -> next, and parity is spent. In assembly, since vpternlog writes over
 * its first operand: the compiler copies registers around it, which takes as long as the work. A word is broadcast
 * from memory for each use instead, which takes no arithmetic port. */
#define ADD_PAIR(parity, next, total, x0, w0, x1, w1)                                                         \
    do {                                                                                                      \
        __m512i t_;                                                                                           \
        __asm__("vpbroadcastd %[a], %[t]\n\t"                                                                 \
                "vpbroadcastd %[b], %[n]\n\t"                                                                 \
                "vpternlogd $0x96, %[u], %[s], %[t]\n\t"                                                      \
                "vpternlogd $0x96, %[v], %[t], %[n]\n\t"                                                      \
                "vpternlogd $0x74, %[n], %[t], %[s]\n\t"                                                      \
                "vpopcntd %[s], %[s]\n\t"                                                                     \
                "vpaddd %[s], %[c], %[c]"                                                                     \
                : [t] "=&v"(t_), [n] "=&v"(next), [s] "+v"(parity), [c] "+v"(total)                           \
                : [a] "m"(x0), [b] "m"(x1), [u] "v"(w0), [v] "v"(w1));                                        \
    } while (0)

/* w: [words][32 lanes] */
ALWAYS void dense_tile(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                       const uint32_t *w, const int pixels, int32_t *pops)
{
    __m512i parity[2 * TILE_PIXELS], next[2 * TILE_PIXELS], total[2 * TILE_PIXELS];
    static const uint32_t nothing = 0;
    const __m512i zero = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 2 * pixels; i++)
        parity[i] = total[i] = zero;
    int64_t k = 0;
    /* Four words a turn, so that parities come back to the registers they were in. */
    for (; k + 4 <= words; k += 4) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const uint32_t *at = w + index[k + 2 * half], *then = w + index[k + 2 * half + 1];
            const __m512i w0 = _mm512_loadu_si512(at), w0b = _mm512_loadu_si512(at + 16);
            const __m512i w1 = _mm512_loadu_si512(then), w1b = _mm512_loadu_si512(then + 16);
            if (pixels == 1) /* weights are read once, from far away: the processor's own prefetching ends with a page */
#pragma GCC unroll 4
                for (int line = 0; line < 4; line++)
                    _mm_prefetch((const char *)(at + PREFETCH + 16 * line), _MM_HINT_T0);
            const int64_t first = offsets[k + 2 * half], second = offsets[k + 2 * half + 1];
#pragma GCC unroll 4
            for (int i = 0; i < pixels; i++) {
                __m512i *from = half ? next : parity, *to = half ? parity : next;
                ADD_PAIR(from[2 * i], to[2 * i], total[2 * i], x[i][first], w0, x[i][second], w1);
                ADD_PAIR(from[2 * i + 1], to[2 * i + 1], total[2 * i + 1], x[i][first], w0b, x[i][second], w1b);
            }
        }
    }
    for (; k < words; k += 2) { /* the rest; of an odd word nothing is the partner */
        const int both = k + 2 <= words;
        const uint32_t *at = w + index[k], *then = w + (both ? index[k + 1] : 0);
        const __m512i w0 = _mm512_loadu_si512(at), w0b = _mm512_loadu_si512(at + 16);
        const __m512i w1 = both ? _mm512_loadu_si512(then) : zero, w1b = both ? _mm512_loadu_si512(then + 16) : zero;
#pragma GCC unroll 4
        for (int i = 0; i < pixels; i++) {
            const uint32_t *second = both ? x[i] + offsets[k + 1] : &nothing;
            ADD_PAIR(parity[2 * i], next[2 * i], total[2 * i], x[i][offsets[k]], w0, *second, w1);
            ADD_PAIR(parity[2 * i + 1], next[2 * i + 1], total[2 * i + 1], x[i][offsets[k]], w0b, *second, w1b);
            parity[2 * i] = next[2 * i];
            parity[2 * i + 1] = next[2 * i + 1];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * pixels; i++)
        _mm512_store_si512(pops + 16 * i, _mm512_add_epi32(_mm512_slli_epi32(total[i], 1),
                                                           _mm512_popcnt_epi32(parity[i])));
}

/* w: [words][weights, mask][32 lanes] */
ALWAYS void masked_tile(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                        const uint32_t *w, const int pixels, int32_t *pops)
{
    (void)index;
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

const Variant variant_avx512 = {"avx512",      "lanes",      LANES,        MASKED_LANES, FLOAT_LANES, 1,
                                pack_avx512,   window_avx512, dense_avx512, masked_avx512, rows_avx512,
                                filters_avx512, floats_avx512, pooled_avx512};
#endif
