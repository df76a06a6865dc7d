/* AVX2: 4 pixels x 64 filters by table lookup, without a popcount.
 *
 * A nibble a of the input selects the row popcount(a ^ i), i = 0..15, of a constant table; the weights' nibbles of
 * 32 filters then index that row with one byte shuffle.  Two shuffles and two adds a byte of K for 32 filters. */
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,popcnt")))
#define VARIANT(name) name##_avx2
#define LANES 64
#define MASKED_LANES 32
#define ALWAYS static inline __attribute__((always_inline)) TARGET

#define N(a, i) ((((a ^ i) >> 0) & 1) + (((a ^ i) >> 1) & 1) + (((a ^ i) >> 2) & 1) + (((a ^ i) >> 3) & 1))
#define ROW(a)                                                                                                \
    {N(a, 0), N(a, 1), N(a, 2),  N(a, 3),  N(a, 4),  N(a, 5),  N(a, 6),  N(a, 7),                             \
     N(a, 8), N(a, 9), N(a, 10), N(a, 11), N(a, 12), N(a, 13), N(a, 14), N(a, 15)}
static const uint8_t distance[16][16] __attribute__((aligned(64))) = {
    ROW(0), ROW(1), ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7),
    ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15)};

ALWAYS uint32_t less_f32(const float *a, const float *b)
{
    uint32_t word = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        word |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(a + 8 * i), _mm256_loadu_ps(b + 8 * i),
                                                           _CMP_LT_OQ)) << (8 * i);
    return word;
}

ALWAYS __m256i load(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}

ALWAYS uint32_t less_i32(const int32_t *a, const int32_t *b)
{
    uint32_t word = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        word |= (uint32_t)_mm256_movemask_ps(
                    _mm256_castsi256_ps(_mm256_cmpgt_epi32(load(b + 8 * i), load(a + 8 * i)))) << (8 * i);
    return word;
}

ALWAYS __m256i row_of(unsigned nibble_times_16)
{
    const uint8_t *row = &distance[0][0] + nibble_times_16;
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)row));
}

/* 16 sums of 16 bits are added to 16 numbers of pops. */
ALWAYS void add_to_pops(int32_t *pops, __m128i eight)
{
    _mm256_store_si256((__m256i *)pops, _mm256_add_epi32(load(pops), _mm256_cvtepu16_epi32(eight)));
}

/* w: [words][4 bytes][64 lanes].  Sums of a byte's two distances (at most 8) are kept in bytes for up to 31 bytes,
 * those in 16 bits for up to 8191; beyond that the sums go to pops. */
enum { BYTE_RUN = 7 * 4, SHORT_RUN = 2044 };

ALWAYS void dense_tile(const uint32_t *const *x, const int32_t *offsets, int64_t words, const uint32_t *w,
                       const int pixels, int32_t *pops)
{
    const __m256i low_nibble = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    const uint8_t *weights = (const uint8_t *)w;
    memset(pops, 0, (size_t)pixels * LANES * sizeof(int32_t));
    for (int64_t k = 0; k < words;) {
        __m256i sums[TILE_PIXELS][4]; /* 16 bits; lanes 0-7 16-23 | 8-15 24-31 | 32-39 48-55 | 40-47 56-63 */
        memset(sums, 0, sizeof sums);
        const int64_t flush = words - k < SHORT_RUN ? words : k + SHORT_RUN;
        while (k < flush) {
            __m256i bytes[TILE_PIXELS][2];
#pragma GCC unroll 4
            for (int i = 0; i < pixels; i++)
                bytes[i][0] = bytes[i][1] = zero;
            const int64_t stop = flush - k < BYTE_RUN / 4 ? flush : k + BYTE_RUN / 4;
            for (; k < stop; k++) {
                const int64_t at = offsets[k];
#pragma GCC unroll 1
                for (int b = 0; b < 4; b++, weights += LANES) {
                    const __m256i first = load(weights), second = load(weights + 32);
                    const __m256i low0 = _mm256_and_si256(first, low_nibble);
                    const __m256i high0 = _mm256_and_si256(_mm256_srli_epi16(first, 4), low_nibble);
                    const __m256i low1 = _mm256_and_si256(second, low_nibble);
                    const __m256i high1 = _mm256_and_si256(_mm256_srli_epi16(second, 4), low_nibble);
#pragma GCC unroll 4
                    for (int i = 0; i < pixels; i++) {
                        const unsigned byte = ((const uint8_t *)(x[i] + at))[b];
                        const __m256i low = row_of((byte & 15) << 4), high = row_of(byte & 0xf0);
                        bytes[i][0] = _mm256_add_epi8(bytes[i][0], _mm256_add_epi8(
                            _mm256_shuffle_epi8(low, low0), _mm256_shuffle_epi8(high, high0)));
                        bytes[i][1] = _mm256_add_epi8(bytes[i][1], _mm256_add_epi8(
                            _mm256_shuffle_epi8(low, low1), _mm256_shuffle_epi8(high, high1)));
                        /* Keeps the compiler from adding in another order, which needs more registers than are. */
                        __asm__("" : "+x"(bytes[i][0]), "+x"(bytes[i][1]));
                    }
                }
            }
#pragma GCC unroll 4
            for (int i = 0; i < pixels; i++)
#pragma GCC unroll 2
                for (int half = 0; half < 2; half++) {
                    __m256i *sum = &sums[i][2 * half];
                    sum[0] = _mm256_add_epi16(sum[0], _mm256_unpacklo_epi8(bytes[i][half], zero));
                    sum[1] = _mm256_add_epi16(sum[1], _mm256_unpackhi_epi8(bytes[i][half], zero));
                }
        }
        for (int i = 0; i < pixels; i++)
            for (int half = 0; half < 2; half++) {
                int32_t *to = pops + i * LANES + 32 * half;
                const __m256i low = sums[i][2 * half], high = sums[i][2 * half + 1];
                add_to_pops(to, _mm256_castsi256_si128(low));
                add_to_pops(to + 8, _mm256_castsi256_si128(high));
                add_to_pops(to + 16, _mm256_extracti128_si256(low, 1));
                add_to_pops(to + 24, _mm256_extracti128_si256(high, 1));
            }
    }
}

ALWAYS __m256i popcount_bytes(__m256i v)
{
    const __m256i table = row_of(0), low_nibble = _mm256_set1_epi8(15);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(v, low_nibble));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low_nibble));
    return _mm256_add_epi8(low, high);
}

/* w: [words][weights, mask][32 lanes] */
ALWAYS void masked_tile(const uint32_t *const *x, const int32_t *offsets, int64_t words, const uint32_t *w,
                        const int pixels, int32_t *pops)
{
    const __m256i ones = _mm256_set1_epi8(1), pairs = _mm256_set1_epi16(1);
    memset(pops, 0, (size_t)pixels * MASKED_LANES * sizeof(int32_t));
    for (int i = 0; i < pixels; i++)
        for (int64_t k = 0; k < words;) {
            __m256i bytes[4];
            const int64_t first = k, stop = words - k < 31 ? words : k + 31; /* 31 * 8 fits into a byte */
#pragma GCC unroll 4
            for (int part = 0; part < 4; part++) {
                const uint32_t *at = w + first * 2 * MASKED_LANES + 8 * part;
                bytes[part] = _mm256_setzero_si256();
                for (k = first; k < stop; k++, at += 2 * MASKED_LANES) {
                    const __m256i word = _mm256_set1_epi32((int)x[i][offsets[k]]);
                    const __m256i product = _mm256_and_si256(_mm256_xor_si256(word, load(at)),
                                                             load(at + MASKED_LANES));
                    bytes[part] = _mm256_add_epi8(bytes[part], popcount_bytes(product));
                }
                int32_t *to = pops + i * MASKED_LANES + 8 * part;
                const __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(bytes[part], ones), pairs);
                _mm256_store_si256((__m256i *)to, _mm256_add_epi32(load(to), sum));
            }
        }
}

#include "engine.h"
#include "rows.h"

const Variant variant_avx2 = {"avx2", "nibbles", LANES, MASKED_LANES, pack_avx2, window_avx2, dense_avx2,
                              masked_avx2, rows_avx2, filters_avx2};
#endif
