/* What the files of this folder share: one call, the job made of it, and what a processor variant provides.
 *
 *     module.c    Python's door: integers in, a ConvCall out
 *     checks.c    which calls are possible: every number against every other, and against the length of each buffer
 *     plan.c classes.c   sizes, memory and tables of a call, none of which depends on the processor
 *     convolve.c  images and threads
 *     engine.h    packing, tiling and the epilogue in plain C; each variant compiles its own copy
 *     rows.h      the same for elementwise work of training; training.c its threads
 *     floats.h    the same for the float convolutions between packed layers; floats.c sizes, memory and threads
 *     avx512.c avx2.c neon.c scalar.c   the inner loops
 *     dispatch.c  what this processor can run
 *     threads.c   a pool of sleeping workers
 *
 * Bit 0 is the upper value (+1), bit 1 the lower (-1).  Activations are words of 32 channels, pixels in rows. */
#ifndef BINARIZE_KERNELS_H
#define BINARIZE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { INPUT_NHWC, INPUT_NCHW, INPUT_WORDS };

/* A BUFFER is two integers: an address, 0 for "not given", and `name_bytes`, how far one can read from there.
 * Shapes are those of the torch tensors. */
#define CONV_FIELDS(FIELD, BUFFER)                                                                           \
    BUFFER(input)           /* float32 [N][H][W][C] or [N][C][H][W], or words [N][H][W][ceil(C/32)] */       \
    FIELD(input_kind)       /* INPUT_* */                                                                    \
    BUFFER(thresholds)      /* float32 [planes][C]: bit = x < threshold; 0: thresholds of 0 */               \
    FIELD(planes)           /* bit planes made of one input */                                               \
    FIELD(zero_one)         /* the upper and lower input value are 1 and 0, not +1 and -1 */                 \
    FIELD(batch)                                                                                             \
    FIELD(channels)                                                                                          \
    FIELD(height)                                                                                            \
    FIELD(width)                                                                                             \
    FIELD(out_channels)                                                                                      \
    FIELD(out_height)                                                                                        \
    FIELD(out_width)                                                                                         \
    FIELD(kernel_height)                                                                                     \
    FIELD(kernel_width)                                                                                      \
    FIELD(stride_height)                                                                                     \
    FIELD(stride_width)                                                                                      \
    FIELD(pad_top)                                                                                           \
    FIELD(pad_bottom)                                                                                        \
    FIELD(pad_left)                                                                                          \
    FIELD(pad_right)                                                                                         \
    FIELD(dilation_height)                                                                                   \
    FIELD(dilation_width)                                                                                    \
    FIELD(groups)                                                                                            \
    FIELD(pad_value)        /* -1, 0 or 1 */                                                                 \
    BUFFER(weight)          /* the variant's layout, see layout.py */                                        \
    FIELD(masked)           /* the layout interleaves masks: several groups share a word */                  \
    BUFFER(starts)          /* int32 [blocks]: first word of a pixel that a block of filters reads */        \
    FIELD(span)             /* words of a pixel that a block reads */                                        \
    BUFFER(corner_sums)     /* int32 [kh+1][kw+1][padded O]: sum of the weights above and left of a tap */   \
    BUFFER(dots)            /* out: int32 [N][H'][W'][O] */                                                  \
    BUFFER(result)          /* out: float32 [N][H'][W'][O] */                                                \
    BUFFER(bits)            /* out: words [N][H'][W'][ceil(O/32)]: dot < limit, or result < next_threshold */ \
    BUFFER(scale)           /* float32 [planes][O] */                                                        \
    BUFFER(shift)           /* float32 [O] */                                                                \
    BUFFER(window_scale)    /* float32 [O] */                                                                \
    BUFFER(border)          /* float32 [2][O] */                                                             \
    BUFFER(residual)        /* float32 [N][H'][W'][O] */                                                     \
    BUFFER(activation)      /* float32 [4][O]: pre, positive, negative, post */                              \
    FIELD(activation_first) /* before the residual */                                                        \
    BUFFER(limit)           /* int32 [O] */                                                                  \
    BUFFER(flip)            /* words [ceil(O/32)]: inverts bits */                                           \
    BUFFER(next_threshold)  /* float32 [O] */                                                                \
    FIELD(threads)

typedef struct {
#define DECLARE(name) int64_t name;
#define DECLARE_BUFFER(name) int64_t name, name##_bytes;
    CONV_FIELDS(DECLARE, DECLARE_BUFFER)
} ConvCall;

#define MAX_PLANES 8
#define MAX_KERNEL 4096
#define MOST_SCRATCH ((int64_t)1 << 30) /* bytes of margins, and of tables, that one call may take */
#define MOST_PIXELS 8   /* output pixels that an inner loop computes at once */
#define MAX_LANES 64    /* filters that it computes at once */
#define PACK_PIXELS 64  /* pixels that a [C][H][W] image is packed by */
#define MAX_THREADS 64

/* Float or word input of one image -> words in a buffer with a margin. */
typedef struct {
    const void *input;
    int64_t kind, channels, height, width, words; /* words of a pixel */
    const float *thresholds;                      /* [words * 32], filled up with 0 */
    uint32_t *first;                              /* where pixel (0, 0) goes */
    int64_t row_words;                            /* words from one row of the buffer to the next */
} PackJob;

/* A rectangle of output pixels whose windows have the same words to read. Pixels are numbered rectangle by rectangle. */
typedef struct {
    int64_t first;                    /* number of its first pixel */
    int64_t row, column, width, height;
    const int32_t *offsets;           /* [words] from a window's first word to the k-th that is read */
    const int32_t *index;             /* [words] which word of a filter that is, times LAYOUT_LANES's lanes */
    int64_t words;
} Region;

/* One image convolved.  Arrays over filters have `padded` entries, so that a block is always whole. */
typedef struct {
    const uint32_t *image;            /* window of output (0, 0), first plane */
    int64_t plane_words, row_step, pixel_step;
    const Region *regions;            /* one, or where taps outside the image are left out one a class */
    int64_t region_count;
    const uint32_t *weights;
    int64_t block_words;
    const int32_t *starts;

    int64_t out_channels, padded, blocks, groups, planes, out_width, pixels, chunk_pixels;
    const int16_t *row_class, *column_class; /* output pixels whose windows lie inside the image alike */
    int64_t column_classes;
    int pop_shift;
    const int32_t *base;              /* [class][padded]: dot = base - (popcount << pop_shift) */
    const int32_t *pop_limit;         /* [class][padded]: dot < limit where popcount > pop_limit */
    const float *constant;            /* [class][padded], added to the scaled dot */

    const float *scale, *window_scale, *activation, *next_threshold;
    const uint32_t *flip;             /* [padded / 32], inverts the bits of pop_limit */
    int64_t activation_first;
    const int32_t *window;            /* [pixels][groups] */

    int32_t *dots;
    float *result;
    uint32_t *bits;
    int64_t bit_words;                /* words of an output pixel */
    const float *residual;
} ConvJob;

/* Sums of the input over each window. */
typedef struct {
    const uint32_t *image;            /* word 0 of the margin's first pixel */
    int64_t pixel_step, row_step;     /* from output to output */
    int64_t row_gap, column_gap;      /* from tap to tap */
    int64_t kernel_height, kernel_width, groups, group_channels, out_width;
    int pop_shift;
    int64_t pad_value;
    const int16_t *row_inside, *column_inside; /* taps inside the image, of each output row and column */
    int32_t *sums;                    /* [pixels][groups] */
} WindowJob;

/* Elementwise work of training on float32, or on bfloat16 where `half` is set. A row has numbers of its own: the
 * `row % period`-th of each array that is given. With `across`, a row is pixels of `period` channels, and each channel
 * has its own numbers. */
#define ROW_INTEGERS(FIELD)                                                                                  \
    FIELD(op)        /* ROWS_* */                                                                            \
    FIELD(kind)      /* ESTIMATE_*; for ROWS_UNBEND whether the negative slope holds at 0 too */             \
    FIELD(rows)                                                                                              \
    FIELD(length)    /* elements of a row */                                                                 \
    FIELD(total)     /* elements in all: the last row may be shorter */                                      \
    FIELD(period)                                                                                            \
    FIELD(half)                                                                                              \
    FIELD(across)                                                                                            \
    FIELD(threads)
#define ROW_ADDRESSES(FIELD)                                                                                 \
    FIELD(const void, x)                                                                                     \
    FIELD(const void, g)                                                                                     \
    FIELD(void, out)                                                                                         \
    FIELD(const float, centre)                                                                               \
    FIELD(const float, radius)                                                                               \
    FIELD(const float, divisor)                                                                              \
    FIELD(const float, low)                                                                                  \
    FIELD(const float, high)                                                                                 \
    FIELD(const float, post)                                                                                 \
    FIELD(double, sums) /* [rows][ROW_SUMS], or [rows][period][ROW_SUMS] */

#define DECLARE_ADDRESS(type, name)                                                                          \
    type *name;                                                                                              \
    int64_t name##_bytes;
typedef struct {
    ROW_INTEGERS(DECLARE)
    ROW_ADDRESSES(DECLARE_ADDRESS)
    double a, b; /* of the estimator */
} RowsCall;

enum {
    ROWS_SPLIT,           /* out = x < centre ? low : high */
    ROWS_MAGNITUDE,       /* sums: mean |x| */
    ROWS_DEVIATION,       /* sums: mean, sqrt(mean (x - mean)^2) */
    ROWS_ESTIMATE,        /* out = g / divisor * h((x - centre) / radius); sums of g, out, sign g - z out */
    ROWS_ESTIMATE_FILTER, /* the same with the gradient through centre and radius as a row's ROWS_DEVIATION */
    ROWS_BEND,            /* out = (z > 0 ? high : low) * z + post, z = x - centre */
    ROWS_UNBEND,          /* out = g * its slope; sums of g z above 0, below, of g, of out */
    ROWS_PLANES           /* [pixels][channels] -> [channels][pixels] */
};
enum {
    ESTIMATE_CLIP,     /* 1 where |z| <= a */
    ESTIMATE_TRIANGLE, /* 2 - 2 |z|, not below 0 */
    ESTIMATE_DECAY     /* a b (1 - tanh(a z)^2) */
};
#define ROW_SUMS 4
#define FILTER_EPS 1e-8 /* a smaller deviation does not follow its filter */

/* Real-valued filters -> the layout of their signs, see layout.py. */
#define FILTER_INTEGERS(FIELD)                                                                               \
    FIELD(filters)                                                                                           \
    FIELD(channels)                                                                                          \
    FIELD(kernel_height)                                                                                     \
    FIELD(kernel_width)                                                                                      \
    FIELD(lanes)                                                                                             \
    FIELD(padded)                                                                                            \
    FIELD(threads)
#define FILTER_ADDRESSES(FIELD)                                                                              \
    FIELD(const float, weight)      /* [filters][channels][kh][kw] */                                        \
    FIELD(const float, threshold)   /* [filters], 0: thresholds of 0 */                                      \
    FIELD(uint32_t, data)           /* zeroed; gets the layout */                                            \
    FIELD(int32_t, corner_sums)     /* [kh+1][kw+1][padded], zeroed */

typedef struct {
    FILTER_INTEGERS(DECLARE)
    FILTER_ADDRESSES(DECLARE_ADDRESS)
    int layout;        /* LAYOUT_* */
    uint32_t *scratch; /* [filters][words of a filter] */
} FiltersCall;

enum { LAYOUT_LANES, LAYOUT_NIBBLES, LAYOUT_ROWS };

/* A float convolution without groups or dilation, then ReLU, then the largest value of each window of a pool. */
#define FLOAT_FIELDS(FIELD, BUFFER)                                                                          \
    BUFFER(input)           /* float32 [N][H][W][C] or [N][C][H][W] */                                       \
    FIELD(input_kind)       /* INPUT_NHWC or INPUT_NCHW */                                                   \
    FIELD(batch)                                                                                             \
    FIELD(channels)                                                                                          \
    FIELD(height)                                                                                            \
    FIELD(width)                                                                                             \
    FIELD(out_channels)                                                                                      \
    FIELD(out_height)       /* before the pool */                                                            \
    FIELD(out_width)                                                                                         \
    FIELD(kernel_height)                                                                                     \
    FIELD(kernel_width)                                                                                      \
    FIELD(stride_height)                                                                                     \
    FIELD(stride_width)                                                                                      \
    FIELD(pad_top)          /* and at the bottom */                                                          \
    FIELD(pad_left)         /* and on the right */                                                           \
    FIELD(relu)                                                                                              \
    FIELD(pool)             /* side of its window, 0: none */                                                \
    FIELD(pool_stride)                                                                                       \
    FIELD(pool_pad)                                                                                          \
    FIELD(pooled_height)                                                                                     \
    FIELD(pooled_width)                                                                                      \
    BUFFER(weight)          /* float32 [blocks][kh][kw][C][lanes] */                                         \
    BUFFER(bias)            /* float32 [blocks][lanes] */                                                    \
    BUFFER(activation)      /* 0 or float32 [4][blocks][lanes]: before, above, below, after */               \
    BUFFER(result)          /* out: float32 [N][H'][W'][O] */                                                \
    FIELD(threads)

typedef struct {
    FLOAT_FIELDS(DECLARE, DECLARE_BUFFER)
} FloatCall;

typedef struct {
    FloatCall call;
    const float *image;                             /* window of output (0, 0) */
    int64_t image_row, row_step, pixel_step;        /* floats from row to row, and from output to output */
    int64_t run;                                    /* floats of a window's row: they are neighbours */
    int64_t blocks, block_weights, chunks, chunk_pixels;
    float *result;                                  /* of this image */
    int64_t ring;                                   /* rows that a window of the pool holds at most */
    float *rows;                                    /* [worker][ring][out_width][out_channels] */
} FloatJob;

typedef struct {
    const char *name, *layout;        /* layout of an unmasked weight: "lanes", "nibbles" or "rows" */
    int lanes, masked_lanes, float_lanes; /* float_lanes 0: no float convolution */
    int skips;                        /* whether `dense` follows the index of a region */
    void (*pack)(const PackJob *, int64_t begin, int64_t end);     /* rows, or of NCHW PACK_PIXELS pixels */
    void (*window)(const WindowJob *, int64_t begin, int64_t end); /* output rows */
    void (*dense)(const ConvJob *, int64_t begin, int64_t end);    /* units: chunk * blocks + block */
    void (*masked)(const ConvJob *, int64_t begin, int64_t end);
    void (*rows)(const RowsCall *, int64_t begin, int64_t end);
    void (*filters)(const FiltersCall *, int64_t begin, int64_t end);
    void (*floats)(const FloatJob *, int64_t begin, int64_t end);  /* units: chunk * blocks + block */
    void (*pooled)(const FloatJob *, int64_t begin, int64_t end, float *rows); /* rows after the pool */
} Variant;

extern const Variant variant_avx512, variant_avx2, variant_neon, variant_scalar;
#define MAX_VARIANTS 4
int available_variants(const Variant **found);

/* checks.c: NULL, or what is wrong with the call. Sizes that pass need no 64-bit product to be looked at again. */
const char *refuse_conv(const Variant *variant, const ConvCall *call);
const char *refuse_pack(const ConvCall *call);
const char *refuse_rows(const RowsCall *call);
const char *refuse_filters(const Variant *variant, const FiltersCall *call);
const char *refuse_floats(const Variant *variant, const FloatCall *call);
extern const char *const out_of_memory;

/* The same, after the work. */
const char *convolve(const Variant *variant, const ConvCall *call);
const char *pack_image(const Variant *variant, const ConvCall *call);

const char *run_rows(const Variant *variant, const RowsCall *call);
const char *run_filters(const Variant *variant, FiltersCall *call);
const char *run_floats(const Variant *variant, const FloatCall *call);
/* One number for `size` bytes, and for what `before` stands for. */
uint64_t digest(const uint8_t *bytes, int64_t size, uint64_t before);

static inline int thread_count(int64_t wished)
{
    return wished < 1 ? 1 : wished < MAX_THREADS ? (int)wished : MAX_THREADS;
}

typedef void (*Body)(void *context, int64_t begin, int64_t end, int worker);
/* Runs body over [0, n) in ranges, on at most `threads` threads; worker numbers are below `threads`. */
void parallel_for(Body body, void *context, int64_t n, int threads);

#endif
