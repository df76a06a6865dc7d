/* Packing, tiling and the epilogue, in plain C that the compiler vectorizes for the including file's processor.
 *
 * The including file defines
 *     TARGET                      its target attribute, or nothing
 *     VARIANT(name)               name with the variant's suffix
 *     LANES, MASKED_LANES         filters of a block
 *     TILE_PIXELS                 output pixels of a tile, 4 or 8
 *     less_f32(a, b), less_i32(a, b)    word of the 32 comparisons a[i] < b[i]
 *     dense_tile(x, offsets, index, words, w, pixels, pops), masked_tile(...)
 * where pops[pixel * lanes + lane] becomes the popcount of (x ^ w) over `words` words, x[pixel][offsets[k]] being the
 * k-th that is read of a pixel's window, and w[index[k]] where its weights begin. Without `skips` in the variant all
 * words are read in their order, and a tile need not look at the index. */
#include <string.h>

#define INLINE static inline __attribute__((always_inline)) TARGET

typedef void (*TileFunction)(const uint32_t *const *x, const int32_t *offsets, const int32_t *index, int64_t words,
                             const uint32_t *w, const int pixels, int32_t *pops);

/* ---------------------------------------------------------------- input */

/* One row of [W][C] floats. */
INLINE void pack_row_nhwc(const PackJob *job, int64_t y)
{
    const int64_t channels = job->channels, full = channels / 32, rest = channels % 32;
    const float *x = (const float *)job->input + y * job->width * channels;
    uint32_t *out = job->first + y * job->row_words;
    for (int64_t i = 0; i < job->width; i++, x += channels, out += job->words) {
        for (int64_t k = 0; k < full; k++)
            out[k] = less_f32(x + 32 * k, job->thresholds + 32 * k);
        if (rest) {
            float tail[32] = {0}; /* 0 < 0 is false: filling bits are 0 */
            memcpy(tail, x + 32 * full, (size_t)rest * sizeof(float));
            out[full] = less_f32(tail, job->thresholds + 32 * full);
        }
    }
}

/* PACK_PIXELS neighbours, in the order of memory, of a [C][H][W] image: a word takes its bits from 32 planes. */
INLINE void pack_columns_nchw(const PackJob *job, int64_t unit)
{
    const int64_t plane = job->height * job->width, start = unit * PACK_PIXELS;
    const int64_t n = plane - start < PACK_PIXELS ? plane - start : PACK_PIXELS;
    for (int64_t k = 0; k < job->words; k++) {
        uint32_t word[PACK_PIXELS] = {0};
        const int64_t last = job->channels - 32 * k < 32 ? job->channels - 32 * k : 32;
        for (int64_t c = 0; c < last; c++) {
            const float *x = (const float *)job->input + (32 * k + c) * plane + start;
            const float threshold = job->thresholds[32 * k + c];
            const uint32_t bit = (uint32_t)1 << c;
            if (n == PACK_PIXELS)
                for (int i = 0; i < PACK_PIXELS; i++)
                    word[i] |= x[i] < threshold ? bit : 0;
            else
                for (int64_t i = 0; i < n; i++)
                    word[i] |= x[i] < threshold ? bit : 0;
        }
        int64_t y = start / job->width, column = start % job->width;
        for (int64_t i = 0; i < n; i++) {
            job->first[y * job->row_words + column * job->words + k] = word[i];
            if (++column == job->width) {
                column = 0;
                y++;
            }
        }
    }
}

static TARGET void VARIANT(pack)(const PackJob *job, int64_t begin, int64_t end)
{
    const int64_t row = job->width * job->words;
    for (int64_t unit = begin; unit < end; unit++) {
        if (job->kind == INPUT_NHWC)
            pack_row_nhwc(job, unit);
        else if (job->kind == INPUT_NCHW)
            pack_columns_nchw(job, unit);
        else
            memcpy(job->first + unit * job->row_words, (const uint32_t *)job->input + unit * row,
                   (size_t)row * sizeof(uint32_t));
    }
}

/* ---------------------------------------------------------------- window sums */

INLINE int32_t count_lower(const uint32_t *pixel, int64_t first_bit, int64_t last_bit)
{
    int32_t count = 0;
    for (int64_t k = first_bit / 32; 32 * k < last_bit; k++) {
        uint32_t word = pixel[k];
        if (32 * k < first_bit)
            word &= ~(uint32_t)0 << (first_bit - 32 * k);
        if (32 * k + 32 > last_bit)
            word &= ~(uint32_t)0 >> (32 * k + 32 - last_bit);
        count += __builtin_popcount(word);
    }
    return count;
}

/* The margin's bits are 0, so they count nothing as lower; what they stand for is added by the number of taps. */
static TARGET void VARIANT(window)(const WindowJob *job, int64_t begin, int64_t end)
{
    const int64_t taps = job->kernel_height * job->kernel_width, channels = job->group_channels;
    for (int64_t y = begin; y < end; y++)
        for (int64_t x = 0; x < job->out_width; x++) {
            const uint32_t *pixel = job->image + y * job->row_step + x * job->pixel_step;
            const int64_t inside = (int64_t)job->row_inside[y] * job->column_inside[x];
            const int64_t known = channels * (inside + job->pad_value * (taps - inside));
            for (int64_t g = 0; g < job->groups; g++) {
                int32_t lower = 0;
                for (int64_t i = 0; i < job->kernel_height; i++)
                    for (int64_t j = 0; j < job->kernel_width; j++)
                        lower += count_lower(pixel + i * job->row_gap + j * job->column_gap, g * channels,
                                             (g + 1) * channels);
                job->sums[(y * job->out_width + x) * job->groups + g] =
                    (int32_t)known - (lower << job->pop_shift);
            }
        }
}

/* ---------------------------------------------------------------- epilogue */

INLINE void load_lanes(float *to, const float *from, int lanes, const int LANE_COUNT)
{
    if (lanes == LANE_COUNT)
        memcpy(to, from, (size_t)LANE_COUNT * sizeof(float));
    else {
        memset(to, 0, (size_t)LANE_COUNT * sizeof(float));
        memcpy(to, from, (size_t)lanes * sizeof(float));
    }
}

INLINE void store_bits(const ConvJob *job, int64_t pixel, int64_t o, int word, uint32_t bits)
{
    const int64_t k = o / 32 + word;
    if (k < job->bit_words)
        job->bits[pixel * job->bit_words + k] = bits;
}

INLINE void activate(const ConvJob *job, int64_t o, float *y, const int LANE_COUNT)
{
    const float *pre = job->activation + o, *positive = pre + job->padded, *negative = positive + job->padded;
    const float *post = negative + job->padded;
    for (int j = 0; j < LANE_COUNT; j++) {
        const float z = y[j] + pre[j], above = positive[j] * z, under = negative[j] * z;
        y[j] = (z > 0 ? above : under) + post[j];
    }
}

/* popcount -> dot, in place */
INLINE void dots_of(const ConvJob *job, const int32_t *base, int32_t *pops, const int LANE_COUNT)
{
    for (int j = 0; j < LANE_COUNT; j++)
        pops[j] = base[j] - (pops[j] << job->pop_shift);
}

/* Everything that there can be, of any number of lanes.  dot is [plane][...]. */
INLINE void finish_float(const ConvJob *job, int64_t o, int lanes, int64_t pixel, const int32_t *dot,
                         int64_t plane_step, const float *constant, const int LANE_COUNT)
{
    float y[MAX_LANES], other[MAX_LANES];
    for (int j = 0; j < LANE_COUNT; j++)
        y[j] = job->scale[o + j] * (float)dot[j];
    for (int64_t plane = 1; plane < job->planes; plane++) {
        const float *scale = job->scale + plane * job->padded + o;
        for (int j = 0; j < LANE_COUNT; j++)
            y[j] = y[j] + scale[j] * (float)dot[plane * plane_step + j];
    }
    if (job->window) {
        const int64_t group_out = job->out_channels / job->groups;
        for (int j = 0; j < LANE_COUNT; j++)
            other[j] = (float)job->window[pixel * job->groups + (j < lanes ? (o + j) / group_out : 0)];
        for (int j = 0; j < LANE_COUNT; j++)
            y[j] = y[j] + job->window_scale[o + j] * other[j];
    }
    for (int j = 0; j < LANE_COUNT; j++)
        y[j] = y[j] + constant[j];
    if (job->activation && job->activation_first)
        activate(job, o, y, LANE_COUNT);
    if (job->residual) {
        load_lanes(other, job->residual + pixel * job->out_channels + o, lanes, LANE_COUNT);
        for (int j = 0; j < LANE_COUNT; j++)
            y[j] = y[j] + other[j];
    }
    if (job->activation && !job->activation_first)
        activate(job, o, y, LANE_COUNT);
    if (job->result)
        memcpy(job->result + pixel * job->out_channels + o, y, (size_t)lanes * sizeof(float));
    if (job->next_threshold)
        for (int word = 0; word < LANE_COUNT / 32; word++) {
            const int valid = lanes - 32 * word;
            uint32_t below = less_f32(y + 32 * word, job->next_threshold + o + 32 * word);
            if (valid < 32)
                below = valid <= 0 ? 0 : below & ~(~(uint32_t)0 << valid);
            store_bits(job, pixel, o, word, below);
        }
}

/* What ends a tile of the output pixels where[i]. `at[i]` is where the block of such a pixel begins in a table over
 * classes. */
typedef void (*FinishFunction)(const ConvJob *job, int64_t o, const int64_t *where, int n, int32_t *pops,
                               const int64_t *at);

/* Thresholds on the count itself: no dot is computed. */
INLINE void finish_bits(const ConvJob *job, int64_t o, const int64_t *where, int n, const int32_t *pops,
                        const int64_t *at, const int LANE_COUNT)
{
    for (int i = 0; i < n; i++)
        for (int word = 0; word < LANE_COUNT / 32; word++) {
            const int32_t *limit = job->pop_limit + at[i] + 32 * word;
            const uint32_t lower = less_i32(limit, pops + i * LANE_COUNT + 32 * word);
            store_bits(job, where[i], o, word, lower ^ job->flip[o / 32 + word]);
        }
}

INLINE float bent(const ConvJob *job, int64_t o, float y)
{
    const float *table = job->activation + o;
    const float z = y + table[0], above = table[job->padded] * z, under = table[2 * job->padded] * z;
    return (z > 0 ? above : under) + table[3 * job->padded];
}

enum { NOT_BENT, BENT_LAST, BENT_FIRST };

/* One plane and a whole block, in one loop that stays in registers. */
INLINE void finish_whole(const ConvJob *job, int64_t o, const int64_t *where, int n, const int32_t *pops,
                         const int64_t *at, const int LANE_COUNT, const int window, const int residual,
                         const int activation)
{
    const float *scale = job->scale + o, *window_scale = job->window_scale + (window ? o : 0);
    const int shift = job->pop_shift;
    for (int i = 0; i < n; i++, pops += LANE_COUNT) {
        const int32_t *base = job->base + at[i];
        const float *constant = job->constant + at[i];
        const int64_t first = where[i] * job->out_channels + o;
        const float *other = job->residual + (residual ? first : 0);
        const float sum = window ? (float)job->window[where[i]] : 0;
        float *y = job->result + first;
#pragma GCC ivdep
        for (int j = 0; j < LANE_COUNT; j++) {
            float v = scale[j] * (float)(base[j] - (pops[j] << shift));
            if (window)
                v = v + window_scale[j] * sum;
            v = v + constant[j];
            if (activation == BENT_FIRST)
                v = bent(job, o + j, v);
            if (residual)
                v = v + other[j];
            if (activation == BENT_LAST)
                v = bent(job, o + j, v);
            y[j] = v;
        }
    }
}

/* The common case: floats, perhaps with their signs, and nothing that is told apart within a block. */
INLINE void finish_affine(const ConvJob *job, int64_t o, const int64_t *where, int n, const int32_t *pops,
                          const int64_t *at, const int LANE_COUNT)
{
    const int bends = !job->activation ? NOT_BENT : job->activation_first ? BENT_FIRST : BENT_LAST;
    switch ((job->window ? 6 : 0) + (job->residual ? 3 : 0) + bends) {
#define CASE(window, residual, bends)                                                                         \
    case 6 * window + 3 * residual + bends:                                                                   \
        finish_whole(job, o, where, n, pops, at, LANE_COUNT, window, residual, bends);                        \
        break;
        CASE(0, 0, NOT_BENT) CASE(0, 0, BENT_LAST) CASE(0, 0, BENT_FIRST)
        CASE(0, 1, NOT_BENT) CASE(0, 1, BENT_LAST) CASE(0, 1, BENT_FIRST)
        CASE(1, 0, NOT_BENT) CASE(1, 0, BENT_LAST) CASE(1, 0, BENT_FIRST)
        CASE(1, 1, NOT_BENT) CASE(1, 1, BENT_LAST) CASE(1, 1, BENT_FIRST)
#undef CASE
    }
    if (!job->next_threshold)
        return;
    for (int i = 0; i < n; i++)
        for (int word = 0; word < LANE_COUNT / 32; word++) {
            const float *y = job->result + where[i] * job->out_channels + o + 32 * word;
            store_bits(job, where[i], o, word, less_f32(y, job->next_threshold + o + 32 * word));
        }
}

INLINE void finish_any(const ConvJob *job, int64_t o, const int64_t *where, int n, int32_t *pops,
                       const int64_t *at, const int LANE_COUNT)
{
    const int lanes = job->out_channels - o < LANE_COUNT ? (int)(job->out_channels - o) : LANE_COUNT;
    const int64_t plane_step = TILE_PIXELS * LANE_COUNT;
    if (job->pop_limit)
        finish_bits(job, o, where, n, pops, at, LANE_COUNT);
    for (int i = 0; i < n; i++, pops += LANE_COUNT) {
        for (int64_t plane = 0; plane < job->planes; plane++)
            dots_of(job, job->base + at[i], pops + plane * plane_step, LANE_COUNT);
        if (job->dots)
            memcpy(job->dots + where[i] * job->out_channels + o, pops, (size_t)lanes * sizeof(int32_t));
        if (job->scale)
            finish_float(job, o, lanes, where[i], pops, plane_step, job->constant + at[i], LANE_COUNT);
    }
}

/* ---------------------------------------------------------------- tiles */

/* One block of filters over output pixels of a region. A tile takes any neighbours, so rows may end inside it. */
INLINE void convolve_region(const ConvJob *job, const Region *region, int64_t block, int64_t begin, int64_t end,
                            const int LANE_COUNT, TileFunction tile, FinishFunction finish)
{
    const uint32_t *weights = job->weights + block * job->block_words;
    const uint32_t *image = job->image + job->starts[block];
    const int64_t o = block * LANE_COUNT, right = region->column + region->width;
    int32_t pops[MAX_PLANES * TILE_PIXELS * MAX_LANES] __attribute__((aligned(64)));
    int64_t y = region->row + (begin - region->first) / region->width;
    int64_t x = region->column + (begin - region->first) % region->width;
    for (int64_t pixel = begin; pixel < end; pixel += TILE_PIXELS) {
        const int n = end - pixel < TILE_PIXELS ? (int)(end - pixel) : TILE_PIXELS;
        const uint32_t *windows[TILE_PIXELS];
        int64_t at[TILE_PIXELS], where[TILE_PIXELS];
        for (int i = 0; i < n; i++) {
            windows[i] = image + y * job->row_step + x * job->pixel_step;
            at[i] = (job->row_class[y] * job->column_classes + job->column_class[x]) * job->padded + o;
            where[i] = y * job->out_width + x;
            if (++x == right) {
                x = region->column;
                y++;
            }
        }
        for (int64_t plane = 0;;) {
            int32_t *out = pops + plane * TILE_PIXELS * LANE_COUNT;
            switch (n) {
#define CASE(pixels)                                                                                          \
    case pixels:                                                                                              \
        tile(windows, region->offsets, region->index, region->words, weights, pixels, out);                   \
        break;
#if TILE_PIXELS == 8
                CASE(8) CASE(7) CASE(6) CASE(5)
#endif
                CASE(4) CASE(3) CASE(2) CASE(1)
#undef CASE
            }
            if (++plane == job->planes)
                break;
            for (int i = 0; i < n; i++)
                windows[i] += job->plane_words;
        }
        finish(job, o, where, n, pops, at);
    }
}

/* One block of filters over a range of output pixels. */
INLINE void convolve_block(const ConvJob *job, int64_t block, int64_t begin, int64_t end, const int LANE_COUNT,
                           TileFunction tile, FinishFunction finish)
{
    for (int64_t i = 0; i < job->region_count; i++) {
        const Region *region = job->regions + i;
        const int64_t stop = i + 1 < job->region_count ? region[1].first : job->pixels;
        const int64_t first = begin > region->first ? begin : region->first, last = end < stop ? end : stop;
        if (first < last)
            convolve_region(job, region, block, first, last, LANE_COUNT, tile, finish);
    }
}

/* finish: for bits alone, for floats in whole blocks, for the rest */
INLINE void convolve_units(const ConvJob *job, int64_t begin, int64_t end, const int LANE_COUNT, TileFunction tile,
                           FinishFunction bits, FinishFunction affine, FinishFunction any)
{
    const int only_bits = job->pop_limit && !job->dots && !job->scale;
    const int floats = job->scale && job->planes == 1 && !job->pop_limit && !job->dots && job->result &&
                            (!job->window || job->groups == 1);
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t block = unit % job->blocks, first = unit / job->blocks * job->chunk_pixels;
        const int64_t last = first + job->chunk_pixels < job->pixels ? first + job->chunk_pixels : job->pixels;
        const int whole = (block + 1) * LANE_COUNT <= job->out_channels;
        convolve_block(job, block, first, last, LANE_COUNT, tile,
                       only_bits ? bits : floats && whole ? affine : any);
    }
}

/* Ends of tiles are real functions, so that the loop over tiles is compiled once and not for each of them. */
#define FINISH(end, weights, LANE_COUNT)                                                                      \
    static __attribute__((noinline)) TARGET void VARIANT(finish_##end##_##weights)(                           \
        const ConvJob *job, int64_t o, const int64_t *where, int n, int32_t *pops, const int64_t *at)         \
    {                                                                                                         \
        finish_##end(job, o, where, n, pops, at, LANE_COUNT);                                                 \
    }

#define CONVOLVE(weights, LANE_COUNT, tile)                                                                   \
    FINISH(bits, weights, LANE_COUNT)                                                                         \
    FINISH(affine, weights, LANE_COUNT)                                                                       \
    FINISH(any, weights, LANE_COUNT)                                                                          \
    static TARGET void VARIANT(weights)(const ConvJob *job, int64_t begin, int64_t end)                       \
    {                                                                                                         \
        convolve_units(job, begin, end, LANE_COUNT, tile, VARIANT(finish_bits_##weights),                     \
                       VARIANT(finish_affine_##weights), VARIANT(finish_any_##weights));                      \
    }

CONVOLVE(dense, LANES, dense_tile)
CONVOLVE(masked, MASKED_LANES, masked_tile)
