/* AVX2: 8 pixels x 64 filters by table lookup, without a popcount.
 *
 * Nibbles a of one pixel and b of another select the row
 *
 *     popcount(a ^ i) + 16 * popcount(b ^ i),  i = 0..15
 *
 * of a constant table; the weights' nibbles of 32 filters then index that row with one byte shuffle, which counts
 * for both pixels. Three such counts fit into a nibble (3 * 4 < 16), then the upper ones are split off: 9
 * instructions for 3 nibbles of 2 pixels, where rows of single counts take 12. */
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,fma,popcnt")))
#define VARIANT(name) name##_avx2
#define LANES 64
#define MASKED_LANES 32
#define TILE_PIXELS 8
#define PAIRS (TILE_PIXELS / 2)
#define FLOAT_LANES 16
#define FLOAT_PIXELS 6
#define ALWAYS static inline __attribute__((always_inline)) TARGET

#define COUNT(a, i) ((((a ^ i) >> 0) & 1) + (((a ^ i) >> 1) & 1) + (((a ^ i) >> 2) & 1) + (((a ^ i) >> 3) & 1))
#define BOTH(a, b, i) (COUNT(a, i) + 16 * COUNT(b, i))
#define ROW(a, b)                                                                                             \
    {BOTH(a, b, 0),  BOTH(a, b, 1),  BOTH(a, b, 2),  BOTH(a, b, 3), BOTH(a, b, 4),  BOTH(a, b, 5),            \
     BOTH(a, b, 6),  BOTH(a, b, 7),  BOTH(a, b, 8),  BOTH(a, b, 9), BOTH(a, b, 10), BOTH(a, b, 11),           \
     BOTH(a, b, 12), BOTH(a, b, 13), BOTH(a, b, 14), BOTH(a, b, 15)}
#define ROWS(b)                                                                                               \
    ROW(0, b), ROW(1, b), ROW(2, b), ROW(3, b), ROW(4, b), ROW(5, b), ROW(6, b), ROW(7, b), ROW(8, b),        \
        ROW(9, b), ROW(10, b), ROW(11, b), ROW(12, b), ROW(13, b), ROW(14, b), ROW(15, b)
static const uint8_t distances[256][16] __attribute__((aligned(64))) = {
    ROWS(0), ROWS(1), ROWS(2),  ROWS(3),  ROWS(4),  ROWS(5),  ROWS(6),  ROWS(7),
    ROWS(8), ROWS(9), ROWS(10), ROWS(11), ROWS(12), ROWS(13), ROWS(14), ROWS(15)};

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

ALWAYS __m256i row_at(unsigned byte_offset)
{
    const uint8_t *row = &distances[0][0] + byte_offset;
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)row));
}

/* The nibbles of a byte, as vectors of 32 indices. */
ALWAYS __m256i low_nibbles(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

ALWAYS __m256i high_nibbles(__m256i v)
{
    return low_nibbles(_mm256_srli_epi16(v, 4));
}

/* Counts of a word are at most 32: those of WORD_RUN words fit into a byte, those of PART into 16 bits. */
enum { WORD_RUN = 7, PART = 28 * WORD_RUN };

/* Rows of the table for 8 nibbles of each pair of pixels, as offsets in bytes. */
typedef uint16_t PairRows[PAIRS][8];

ALWAYS void find_rows(const uint32_t *const *x, const int32_t *offsets, int64_t words, const int pixels,
                      PairRows *rows)
{
#define PIXEL(i) (x[i < pixels ? i : pixels - 1][at])
    const __m128i low_nibble = _mm_set1_epi8(15), high_nibble = _mm_set1_epi8((char)0xf0);
    for (int64_t k = 0; k < words; k++) {
        const int64_t at = offsets[k];
        const __m128i a = _mm_setr_epi32((int)PIXEL(0), (int)PIXEL(2), (int)PIXEL(4), (int)PIXEL(6));
        const __m128i b = _mm_setr_epi32((int)PIXEL(1), (int)PIXEL(3), (int)PIXEL(5), (int)PIXEL(7));
        const __m128i even = _mm_or_si128(_mm_and_si128(a, low_nibble),
                                          _mm_slli_epi32(_mm_and_si128(b, low_nibble), 4));
        const __m128i odd = _mm_or_si128(_mm_and_si128(_mm_srli_epi32(a, 4), low_nibble),
                                         _mm_and_si128(b, high_nibble));
        const __m256i first = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd));
        const __m256i second = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(even, odd));
        _mm256_storeu_si256((__m256i *)rows[k], _mm256_slli_epi16(first, 4));
        _mm256_storeu_si256((__m256i *)rows[k] + 1, _mm256_slli_epi16(second, 4));
    }
#undef PIXEL
}

/* 16 counts of 16 bits are added to 16 pops. */
ALWAYS void add_to_pops(int32_t *pops, __m256i counts)
{
    const __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(counts));
    const __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(counts, 1));
    _mm256_store_si256((__m256i *)pops, _mm256_add_epi32(load(pops), low));
    _mm256_store_si256((__m256i *)(pops + 8), _mm256_add_epi32(load(pops + 8), high));
}

/* 32 counts of 8 bits are added to 32 of 16, which stand in the order 0-7 16-23, 8-15 24-31. */
ALWAYS void add_to_sums(__m256i *sums, __m256i counts)
{
    const __m256i zero = _mm256_setzero_si256();
    sums[0] = _mm256_add_epi16(sums[0], _mm256_unpacklo_epi8(counts, zero));
    sums[1] = _mm256_add_epi16(sums[1], _mm256_unpackhi_epi8(counts, zero));
}

/* What `used` of three nibbles add to the sum of both counts (modulo 256) and to the upper counts. */
ALWAYS void add_counts(__m256i *both, __m256i *upper, const uint16_t *rows, const __m256i *nibbles, const int used)
{
    __m256i counts = _mm256_shuffle_epi8(row_at(rows[0]), nibbles[0]);
    counts = _mm256_add_epi8(counts, _mm256_shuffle_epi8(row_at(rows[1]), nibbles[1]));
    if (used > 2)
        counts = _mm256_add_epi8(counts, _mm256_shuffle_epi8(row_at(rows[2]), nibbles[2]));
    *both = _mm256_add_epi8(*both, counts);
    *upper = _mm256_add_epi8(*upper, high_nibbles(counts));
    /* Keeps the compiler from adding in another order, which needs more registers than are. */
    __asm__("" : "+x"(*both), "+x"(*upper));
}

/* 32 filters over some words: w is [words][4 bytes][LANES], sums [pixel][2]. */
ALWAYS void count_pairs(const PairRows *rows, int64_t words, const uint8_t *w, const int pairs,
                        __m256i (*sums)[2])
{
    for (int64_t k = 0; k < words;) {
        __m256i both[PAIRS], upper[PAIRS];
#pragma GCC unroll 4
        for (int p = 0; p < pairs; p++)
            both[p] = upper[p] = _mm256_setzero_si256();
        const int64_t stop = words - k < WORD_RUN ? words : k + WORD_RUN;
        for (; k < stop; k++, w += 4 * LANES) {
            const __m256i byte0 = load(w), byte1 = load(w + LANES);
            const __m256i first[3] = {low_nibbles(byte0), high_nibbles(byte0), low_nibbles(byte1)};
#pragma GCC unroll 4
            for (int p = 0; p < pairs; p++)
                add_counts(&both[p], &upper[p], rows[k][p], first, 3);
            const __m256i byte2 = load(w + 2 * LANES);
            const __m256i second[3] = {high_nibbles(byte1), low_nibbles(byte2), high_nibbles(byte2)};
#pragma GCC unroll 4
            for (int p = 0; p < pairs; p++)
                add_counts(&both[p], &upper[p], rows[k][p] + 3, second, 3);
            const __m256i byte3 = load(w + 3 * LANES);
            const __m256i third[2] = {low_nibbles(byte3), high_nibbles(byte3)};
#pragma GCC unroll 4
            for (int p = 0; p < pairs; p++)
                add_counts(&both[p], &upper[p], rows[k][p] + 6, third, 2);
        }
#pragma GCC unroll 4
        for (int p = 0; p < pairs; p++) {
            const __m256i shifted = _mm256_slli_epi16(low_nibbles(upper[p]), 4);
            add_to_sums(sums[2 * p], _mm256_sub_epi8(both[p], shifted));
            add_to_sums(sums[2 * p + 1], upper[p]);
        }
    }
}

ALWAYS void dense_pairs(const uint32_t *const *x, const int32_t *offsets, int64_t words, const uint8_t *w,
                        const int pixels, int32_t *pops)
{
    PairRows rows[PART] __attribute__((aligned(32)));
    const int pairs = (pixels + 1) / 2;
    memset(pops, 0, (size_t)pixels * LANES * sizeof(int32_t));
    for (int64_t k = 0; k < words; k += PART) {
        const int64_t n = words - k < PART ? words - k : PART;
        find_rows(x, offsets + k, n, pixels, rows);
        for (int half = 0; half < LANES; half += 32) {
            __m256i sums[TILE_PIXELS][2];
            memset(sums, 0, sizeof sums);
            count_pairs((const PairRows *)rows, n, w + k * 4 * LANES + half, pairs, sums);
            for (int i = 0; i < pixels; i++) {
                const __m256i low = sums[i][0], high = sums[i][1];
                int32_t *to = pops + i * LANES + half;
                add_to_pops(to, _mm256_permute2x128_si256(low, high, 0x20));
                add_to_pops(to + 16, _mm256_permute2x128_si256(low, high, 0x31));
            }
        }
    }
}

/* A pixel alone: what its pair would count is masked off. Weights are read once, from far away. */
ALWAYS void dense_single(const uint32_t *x, const int32_t *offsets, int64_t words, const uint8_t *w, int32_t *pops)
{
    memset(pops, 0, LANES * sizeof(int32_t));
    for (int64_t k = 0; k < words;) {
        __m256i sums[2][2];
        memset(sums, 0, sizeof sums);
        const int64_t flush = words - k < PART ? words : k + PART;
        while (k < flush) {
            __m256i bytes[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            const int64_t stop = flush - k < WORD_RUN ? flush : k + WORD_RUN;
            for (; k < stop; k++) {
                const uint8_t *byte = (const uint8_t *)(x + offsets[k]);
#pragma GCC unroll 4
                for (int b = 0; b < 4; b++, w += LANES) {
                    const __m256i low = row_at((byte[b] & 15u) << 4), high = row_at(byte[b] & 0xf0u);
#pragma GCC unroll 2
                    for (int half = 0; half < 2; half++) {
                        const __m256i weights = load(w + 32 * half);
                        const __m256i counts = _mm256_add_epi8(_mm256_shuffle_epi8(low, low_nibbles(weights)),
                                                               _mm256_shuffle_epi8(high, high_nibbles(weights)));
                        bytes[half] = _mm256_add_epi8(bytes[half], low_nibbles(counts));
                    }
                }
            }
            add_to_sums(sums[0], bytes[0]);
            add_to_sums(sums[1], bytes[1]);
        }
        for (int half = 0; half < 2; half++) {
            add_to_pops(pops + 32 * half, _mm256_permute2x128_si256(sums[half][0], sums[half][1], 0x20));
            add_to_pops(pops + 32 * half + 16, _mm256_permute2x128_si256(sums[half][0], sums[half][1], 0x31));
        }
    }
}

/* w: [words][4 bytes][64 lanes] */
ALWAYS void dense_tile(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                       const uint32_t *w, const int pixels, int32_t *pops)
{
    (void)index;
    if (pixels == 1)
        dense_single(x[0], offsets, words, (const uint8_t *)w, pops);
    else
        dense_pairs(x, offsets, words, (const uint8_t *)w, pixels, pops);
}

ALWAYS __m256i popcount_bytes(__m256i v)
{
    const __m256i row = low_nibbles(row_at(0));
    return _mm256_add_epi8(_mm256_shuffle_epi8(row, low_nibbles(v)), _mm256_shuffle_epi8(row, high_nibbles(v)));
}

/* w: [words][weights, mask][32 lanes] */
ALWAYS void masked_tile(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                        const uint32_t *w, const int pixels, int32_t *pops)
{
    (void)index;
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

/* w: [rows * run][16 lanes] */
ALWAYS void float_tile(const float *const *x, int64_t row_step, int64_t rows, int64_t run, const float *w,
                       const float *bias, const int pixels, float *out)
{
    __m256 low[FLOAT_PIXELS], high[FLOAT_PIXELS];
    const float *at[FLOAT_PIXELS];
#pragma GCC unroll 6
    for (int i = 0; i < pixels; i++) {
        at[i] = x[i];
        low[i] = _mm256_loadu_ps(bias);
        high[i] = _mm256_loadu_ps(bias + 8);
    }
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t k = 0; k < run; k++, w += FLOAT_LANES) {
            const __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + 8);
#pragma GCC unroll 6
            for (int i = 0; i < pixels; i++) {
                const __m256 value = _mm256_broadcast_ss(at[i] + k);
                low[i] = _mm256_fmadd_ps(value, w0, low[i]);
                high[i] = _mm256_fmadd_ps(value, w1, high[i]);
            }
        }
#pragma GCC unroll 6
        for (int i = 0; i < pixels; i++)
            at[i] += row_step;
    }
#pragma GCC unroll 6
    for (int i = 0; i < pixels; i++) {
        _mm256_store_ps(out + i * FLOAT_LANES, low[i]);
        _mm256_store_ps(out + i * FLOAT_LANES + 8, high[i]);
    }
}

#include "engine.h"
#include "rows.h"
#include "floats.h"

const Variant variant_avx2 = {"avx2",      "nibbles",   LANES,      MASKED_LANES, FLOAT_LANES, 0,
                              pack_avx2,   window_avx2, dense_avx2, masked_avx2,  rows_avx2,
                              filters_avx2, floats_avx2, pooled_avx2};
#endif
