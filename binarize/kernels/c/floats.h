/* Float convolutions between packed layers: what a library does slowly, few input channels and 1x1.
 *
 * Each output is one chain of fused multiply-adds in the order (ky, kx, channel), begun with the bias, so that it does
 * not depend on the variant. The including file defines TARGET, VARIANT, FLOAT_LANES, FLOAT_PIXELS (6 or 8) and
 *     float_tile(x, row_step, rows, run, w, bias, pixels, out)    out [pixels][FLOAT_LANES] */
#include <string.h>

INLINE void float_any_tile(const float *const *x, const FloatJob *job, const float *w, const float *bias, int n,
                           float *out)
{
    switch (n) {
#define CASE(pixels)                                                                                          \
    case pixels:                                                                                              \
        float_tile(x, job->image_row, job->call.kernel_height, job->run, w, bias, pixels, out);               \
        break;
#if FLOAT_PIXELS == 8
        CASE(8) CASE(7)
#endif
        CASE(6) CASE(5) CASE(4) CASE(3) CASE(2) CASE(1)
#undef CASE
    }
}

/* One block's pixels, each channel bent as engine.h's `activate` does. */
INLINE void bend_tile(const FloatJob *job, int64_t first, int n, float *out)
{
    const int64_t padded = job->blocks * FLOAT_LANES;
    const float *pre = (const float *)(intptr_t)job->call.activation + first;
    const float *positive = pre + padded, *negative = positive + padded, *post = negative + padded;
    for (int i = 0; i < n; i++, out += FLOAT_LANES)
        for (int j = 0; j < FLOAT_LANES; j++) {
            const float z = out[j] + pre[j], above = positive[j] * z, under = negative[j] * z;
            out[j] = (z > 0 ? above : under) + post[j];
        }
}

/* Output pixels [begin, end) of one block of filters; to[0] is the first pixel's first filter. */
static __attribute__((noinline)) TARGET void VARIANT(float_block)(const FloatJob *job, int64_t block, int64_t begin,
                                                                  int64_t end, float *to)
{
    const FloatCall *call = &job->call;
    const float *w = (const float *)(intptr_t)call->weight + block * job->block_weights;
    const float *bias = (const float *)(intptr_t)call->bias + block * FLOAT_LANES;
    const int64_t first = block * FLOAT_LANES;
    const int64_t lanes = call->out_channels - first < FLOAT_LANES ? call->out_channels - first : FLOAT_LANES;
    float out[FLOAT_PIXELS * FLOAT_LANES] __attribute__((aligned(64)));
    int64_t y = begin / call->out_width, x = begin % call->out_width;
    to += first;
    for (int64_t pixel = begin; pixel < end; pixel += FLOAT_PIXELS) {
        const int n = end - pixel < FLOAT_PIXELS ? (int)(end - pixel) : FLOAT_PIXELS;
        const float *windows[FLOAT_PIXELS];
        for (int i = 0; i < n; i++) {
            windows[i] = job->image + y * job->row_step + x * job->pixel_step;
            if (++x == call->out_width) {
                x = 0;
                y++;
            }
        }
        float_any_tile(windows, job, w, bias, n, out);
        if (call->relu)
            for (int i = 0; i < n * FLOAT_LANES; i++)
                out[i] = out[i] < 0 ? 0 : out[i];
        if (call->activation)
            bend_tile(job, first, n, out);
        for (int i = 0; i < n; i++, to += call->out_channels)
            memcpy(to, out + i * FLOAT_LANES, (size_t)lanes * sizeof(float));
    }
}

static TARGET void VARIANT(floats)(const FloatJob *job, int64_t begin, int64_t end)
{
    const int64_t pixels = job->call.out_height * job->call.out_width;
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t first = unit / job->blocks * job->chunk_pixels;
        const int64_t last = first + job->chunk_pixels < pixels ? first + job->chunk_pixels : pixels;
        VARIANT(float_block)(job, unit % job->blocks, first, last, job->result + first * job->call.out_channels);
    }
}

/* The first one of those that are largest; what is no number stays, as in torch. */
INLINE void raise_to(float *best, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        best[i] = x[i] > best[i] || x[i] != x[i] ? x[i] : best[i];
}

/* `rows` keeps the last rows before the pool, as many as a window holds; neighbours share some. */
static TARGET void VARIANT(pooled)(const FloatJob *job, int64_t begin, int64_t end, float *rows)
{
    const FloatCall *call = &job->call;
    const int64_t channels = call->out_channels, width = call->out_width, length = width * channels;
    int64_t done = 0; /* rows before this one are in `rows`, or no longer wanted */
    for (int64_t y = begin; y < end; y++) {
        const int64_t top = y * call->pool_stride - call->pool_pad, start = top < 0 ? 0 : top;
        const int64_t under = top + call->pool, stop = under < call->out_height ? under : call->out_height;
        for (int64_t row = done > start ? done : start; row < stop; row++)
            for (int64_t block = 0; block < job->blocks; block++)
                VARIANT(float_block)(job, block, row * width, (row + 1) * width, rows + row % job->ring * length);
        done = stop;
        for (int64_t x = 0; x < call->pooled_width; x++) {
            const int64_t left = x * call->pool_stride - call->pool_pad, from = left < 0 ? 0 : left;
            const int64_t right = left + call->pool, to = right < width ? right : width;
            float *best = job->result + (y * call->pooled_width + x) * channels;
            memcpy(best, rows + start % job->ring * length + from * channels, (size_t)channels * sizeof(float));
            for (int64_t row = start; row < stop; row++)
                for (int64_t column = from; column < to; column++)
                    raise_to(best, rows + row % job->ring * length + column * channels, channels);
        }
    }
}
