/* NEON: 4 pixels x 32 filters with the byte popcount of the processor. */
#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#define TARGET
#define VARIANT(name) name##_neon
#define LANES 32
#define MASKED_LANES 32
#define TILE_PIXELS 4
#define FLOAT_LANES 16
#define FLOAT_PIXELS 6
#define ALWAYS static inline __attribute__((always_inline))
#define QUADS (LANES / 4)
#define BYTE_RUN 31 /* words whose byte counts (at most 8 each) fit into a byte */

static const uint32_t bit_of_lane[4] = {1, 2, 4, 8};

ALWAYS uint32_t less_f32(const float *a, const float *b)
{
    const uint32x4_t weights = vld1q_u32(bit_of_lane);
    uint32_t word = 0;
    for (int i = 0; i < QUADS; i++)
        word |= vaddvq_u32(vandq_u32(vcltq_f32(vld1q_f32(a + 4 * i), vld1q_f32(b + 4 * i)), weights)) << (4 * i);
    return word;
}

ALWAYS uint32_t less_i32(const int32_t *a, const int32_t *b)
{
    const uint32x4_t weights = vld1q_u32(bit_of_lane);
    uint32_t word = 0;
    for (int i = 0; i < QUADS; i++)
        word |= vaddvq_u32(vandq_u32(vcltq_s32(vld1q_s32(a + 4 * i), vld1q_s32(b + 4 * i)), weights)) << (4 * i);
    return word;
}

ALWAYS void add_bytes(int32_t *to, uint8x16_t bytes)
{
    vst1q_s32(to, vaddq_s32(vld1q_s32(to), vreinterpretq_s32_u32(vpaddlq_u16(vpaddlq_u8(bytes)))));
}

/* w: [words][32 lanes], or with masks [words][weights, mask][32 lanes] */
ALWAYS void tile(const uint32_t *const *x, const int32_t *offsets, int64_t words, const uint32_t *w,
                 const int pixels, int32_t *pops, const int has_mask)
{
    const int64_t step = has_mask ? 2 * LANES : LANES;
    memset(pops, 0, (size_t)pixels * LANES * sizeof(int32_t));
    for (int64_t begin = 0; begin < words; begin += BYTE_RUN) {
        const int64_t stop = words - begin < BYTE_RUN ? words : begin + BYTE_RUN;
        for (int part = 0; part < QUADS; part += 4) { /* 16 filters: 4 registers a pixel */
            uint8x16_t bytes[TILE_PIXELS][4];
            for (int i = 0; i < pixels; i++)
                for (int q = 0; q < 4; q++)
                    bytes[i][q] = vdupq_n_u8(0);
            for (int64_t k = begin; k < stop; k++)
                for (int q = 0; q < 4; q++) {
                    const uint32_t *at = w + k * step + 4 * (part + q);
                    const uint32x4_t weight = vld1q_u32(at);
                    const uint32x4_t mask = has_mask ? vld1q_u32(at + LANES) : weight;
                    for (int i = 0; i < pixels; i++) {
                        uint32x4_t product = veorq_u32(vdupq_n_u32(x[i][offsets[k]]), weight);
                        if (has_mask)
                            product = vandq_u32(product, mask);
                        bytes[i][q] = vaddq_u8(bytes[i][q], vcntq_u8(vreinterpretq_u8_u32(product)));
                    }
                }
            for (int i = 0; i < pixels; i++)
                for (int q = 0; q < 4; q++)
                    add_bytes(pops + i * LANES + 4 * (part + q), bytes[i][q]);
        }
    }
}

ALWAYS void dense_tile(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                       const uint32_t *w, const int pixels, int32_t *pops)
{
    (void)index;
    tile(x, offsets, words, w, pixels, pops, 0);
}

ALWAYS void masked_tile(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                        const uint32_t *w, const int pixels, int32_t *pops)
{
    (void)index;
    tile(x, offsets, words, w, pixels, pops, 1);
}

/* w: [rows * run][16 lanes] */
ALWAYS void float_tile(const float *const *x, int64_t row_step, int64_t rows, int64_t run, const float *w,
                       const float *bias, const int pixels, float *out)
{
    float32x4_t sums[FLOAT_PIXELS][4];
    for (int i = 0; i < pixels; i++)
        for (int part = 0; part < 4; part++)
            sums[i][part] = vld1q_f32(bias + 4 * part);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < run; k++, w += FLOAT_LANES) {
            const float32x4_t w0 = vld1q_f32(w), w1 = vld1q_f32(w + 4);
            const float32x4_t w2 = vld1q_f32(w + 8), w3 = vld1q_f32(w + 12);
            for (int i = 0; i < pixels; i++) {
                const float value = x[i][row * row_step + k];
                sums[i][0] = vfmaq_n_f32(sums[i][0], w0, value);
                sums[i][1] = vfmaq_n_f32(sums[i][1], w1, value);
                sums[i][2] = vfmaq_n_f32(sums[i][2], w2, value);
                sums[i][3] = vfmaq_n_f32(sums[i][3], w3, value);
            }
        }
    for (int i = 0; i < pixels; i++)
        for (int part = 0; part < 4; part++)
            vst1q_f32(out + i * FLOAT_LANES + 4 * part, sums[i][part]);
}

#include "engine.h"
#include "rows.h"
#include "floats.h"

const Variant variant_neon = {"neon",      "lanes",     LANES,      MASKED_LANES, FLOAT_LANES, 0,
                              pack_neon,   window_neon, dense_neon, masked_neon,  rows_neon,
                              filters_neon, floats_neon, pooled_neon};
#endif
