/* One number for what some memory holds, so that what was made of it is made anew when it changes.
 *
 * Blocks of eight words go into eight lanes of 64 bits. Each step of a lane,
 *
 *     s = (s ^ word) * ODD,   s ^= s >> 32
 *
 * can be undone, so two memories that differ in one word differ in the result for certain, and others but for one case
 * in 2^64. The shift brings high bits down: without it two flipped signs of floats would cancel out. No defence against
 * somebody who looks for collisions. */
#include <string.h>

#include "kernels.h"

enum { LANES = 8 };
#define ODD UINT64_C(0x9E3779B97F4A7C15)

static inline uint64_t mixed(uint64_t state, uint64_t word)
{
    state = (state ^ word) * ODD;
    return state ^ (state >> 32);
}

/* A multiplication of 64 bits is one instruction; made of vectors of 32 bits it takes longer. */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((optimize("no-tree-vectorize")))
#endif
uint64_t digest(const uint8_t *bytes, int64_t size, uint64_t before)
{
    uint64_t lanes[LANES], words[LANES], result = mixed(before, (uint64_t)size);
    for (int i = 0; i < LANES; i++)
        lanes[i] = result + (uint64_t)i * ODD;
    for (; size >= (int64_t)sizeof words; size -= sizeof words, bytes += sizeof words) {
        memcpy(words, bytes, sizeof words);
        for (int i = 0; i < LANES; i++)
            lanes[i] = mixed(lanes[i], words[i]);
    }
    memset(words, 0, sizeof words);
    if (size > 0)
        memcpy(words, bytes, (size_t)size);
    for (int i = 0; i < LANES; i++)
        result = mixed(result, mixed(lanes[i], words[i]));
    return result;
}
