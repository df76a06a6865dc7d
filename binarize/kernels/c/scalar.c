/* 64-bit popcounts: what remains on a processor without wide registers of its own variant. */
#include "kernels.h"

#if defined(__x86_64__)
#define TARGET __attribute__((target("popcnt")))
#else
#define TARGET
#endif
#define VARIANT(name) name##_scalar
#define LANES 32
#define MASKED_LANES 32
#define TILE_PIXELS 4
#define PART 512 /* words of a window gathered at once */

#include <string.h>

static inline TARGET uint32_t less_f32(const float *a, const float *b)
{
    uint32_t word = 0;
    for (int i = 0; i < 32; i++)
        word |= (uint32_t)(a[i] < b[i]) << i;
    return word;
}

static inline TARGET uint32_t less_i32(const int32_t *a, const int32_t *b)
{
    uint32_t word = 0;
    for (int i = 0; i < 32; i++)
        word |= (uint32_t)(a[i] < b[i]) << i;
    return word;
}

static inline TARGET uint64_t load_pair(const uint32_t *from)
{
    uint64_t pair;
    memcpy(&pair, from, sizeof pair);
    return pair;
}

/* w: [32 lanes][words], each filter in one piece */
static inline TARGET void dense_tile(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                                     const uint32_t *w, const int pixels, int32_t *pops)
{
    (void)index;
    uint32_t patch[TILE_PIXELS][PART];
    for (int64_t begin = 0; begin < words; begin += PART) {
        const int64_t n = words - begin < PART ? words - begin : PART;
        for (int i = 0; i < pixels; i++)
            for (int64_t k = 0; k < n; k++)
                patch[i][k] = x[i][offsets[begin + k]];
        for (int lane = 0; lane < LANES; lane++) {
            const uint32_t *filter = w + lane * words + begin;
            for (int i = 0; i < pixels; i++) {
                int64_t count = 0, k = 0;
                for (; k + 2 <= n; k += 2)
                    count += __builtin_popcountll(load_pair(filter + k) ^ load_pair(patch[i] + k));
                if (k < n)
                    count += __builtin_popcount(filter[k] ^ patch[i][k]);
                pops[i * LANES + lane] = (begin ? pops[i * LANES + lane] : 0) + (int32_t)count;
            }
        }
    }
}

/* w: [words][weights, mask][32 lanes] */
static inline TARGET void masked_tile(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                                      const uint32_t *w, const int pixels, int32_t *pops)
{
    (void)index;
    memset(pops, 0, (size_t)pixels * MASKED_LANES * sizeof(int32_t));
    for (int64_t k = 0; k < words; k++, w += 2 * MASKED_LANES)
        for (int i = 0; i < pixels; i++) {
            const uint32_t word = x[i][offsets[k]];
            for (int lane = 0; lane < MASKED_LANES; lane++)
                pops[i * MASKED_LANES + lane] += __builtin_popcount((word ^ w[lane]) & w[MASKED_LANES + lane]);
        }
}

#include "engine.h"
#include "rows.h"

const Variant variant_scalar = {"scalar",      "rows",        LANES,        MASKED_LANES,  0, 0,
                                pack_scalar,   window_scalar, dense_scalar, masked_scalar, rows_scalar,
                                filters_scalar, NULL,          NULL};
