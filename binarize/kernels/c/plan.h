/* The making of a job from a call: plan.c sizes and memory, classes.c the tables of the border. */
#ifndef BINARIZE_PLAN_H
#define BINARIZE_PLAN_H

#include "kernels.h"

/* Memory of one call, taken in pieces that start on a cache line. */
typedef struct {
    char *memory, *free, *end;
} Arena;

void *arena_take(Arena *arena, int64_t bytes);

typedef struct {
    ConvCall call; /* a copy: 1x1 convolutions are reshaped into one long row */
    const Variant *variant;
    Arena arena;
    ConvJob job;
    WindowJob window;
    PackJob pack;
    int64_t pixel_words, row_words, image_words; /* of one packed plane with its margin */
    int64_t input_bytes;                         /* of one image */
    int64_t units;                               /* chunk * blocks + block */
    int64_t words;                               /* of a whole window */
    int skips;                                   /* whether taps outside the image are not read */
    int in_place;                                /* the input is packed and needs no margin */
    int workers;                                 /* threads that work on images of their own */
    const float *thresholds;                     /* [planes][pixel_words * 32] */
    uint32_t *images;                            /* [workers][planes][image_words] */
    int32_t *windows;                            /* [workers][pixels][groups] */
} Plan;

/* NULL, or what is wrong with the call. The arena's memory is the caller's to free. */
const char *plan_call(Plan *plan, const Variant *variant, const ConvCall *call, int threads);

/* Taps [first, last) of a row of the kernel lie inside the image. */
typedef struct {
    int64_t first, last;
} Taps;

int64_t most_classes(int64_t outputs, int64_t kernel);
int64_t classify(int64_t outputs, int64_t stride, int64_t pad, int64_t length, int64_t kernel, int64_t dilation,
                 int16_t *class_of, Taps *taps);
/* Tables over classes; where the plan skips, counts are those of the taps inside alone. */
void fill_classes(Plan *plan, const Taps *rows, int64_t row_classes, const Taps *columns, int64_t column_classes);

static inline int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline const float *floats_at(int64_t address)
{
    return (const float *)(intptr_t)address;
}

static inline const int32_t *integers_at(int64_t address)
{
    return (const int32_t *)(intptr_t)address;
}

#endif
