/* Elementwise work of training: rows of float32, each with its own few numbers, one pass over memory.
 *
 * Written with vectors of 16 floats, which the compiler makes of what registers the including file's processor has;
 * sums keep 16 partial sums for 512 elements, then go on in double. Results thus do not depend on the processor or on
 * the number of threads. The including file defines TARGET and VARIANT, see engine.h. */
#include <float.h>
#include <math.h>
#include <string.h>

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline)) TARGET
#endif

enum { WIDE = 16, STRIP = 512 };

#pragma GCC diagnostic ignored "-Wpsabi" /* wide vectors are passed between inlined functions alone */

typedef float Floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Masks __attribute__((vector_size(64), aligned(4), may_alias));

INLINE Floats all(float a)
{
    return (Floats){a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a};
}

/* a where the mask is set, else b */
INLINE Floats choose(Masks mask, Floats a, Floats b)
{
    return (Floats)((mask & (Masks)a) | (~mask & (Masks)b));
}

INLINE Floats magnitude(Floats a)
{
    return (Floats)((Masks)a & 0x7fffffff);
}

INLINE Floats take(const float *from, int64_t n)
{
    Floats a = {0};
    if (n >= WIDE)
        return *(const Floats *)from;
    memcpy(&a, from, (size_t)n * sizeof(float));
    return a;
}

INLINE void put(float *to, Floats a, int64_t n)
{
    if (n >= WIDE)
        *(Floats *)to = a;
    else
        memcpy(to, &a, (size_t)n * sizeof(float));
}

/* Statements for every WIDE elements from `from` to `stop`, and for the `left` < WIDE at the end. */
#define EACH_WIDE(i, from, stop, ...)                                                                         \
    do {                                                                                                      \
        int64_t i = from;                                                                                     \
        for (; i + WIDE <= stop; i += WIDE) {                                                                 \
            const int64_t left = WIDE;                                                                        \
            __VA_ARGS__                                                                                       \
        }                                                                                                     \
        if (i < stop) {                                                                                       \
            const int64_t left = stop - i;                                                                    \
            __VA_ARGS__                                                                                       \
        }                                                                                                     \
    } while (0)

INLINE double total(Floats a)
{
    double sum = 0;
    for (int j = 0; j < WIDE; j++)
        sum += (double)a[j];
    return sum;
}

/* exp(a) for a <= 0, to 1e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. */
INLINE Floats exp_negative(Floats a)
{
    const Floats magic = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    const Floats x = choose(a > all(-87.0f), a, all(-87.0f));
    const Floats n = (x * all(1.44269504f) + magic) - magic;
    const Floats r = (x - n * all(0.693145752f)) - n * all(1.42860677e-6f);
    Floats p = all(1.0f / 720);
    p = p * r + all(1.0f / 120);
    p = p * r + all(1.0f / 24);
    p = p * r + all(1.0f / 6);
    p = p * r + all(0.5f);
    p = p * r + all(1);
    p = p * r + all(1);
    return (Floats)((Masks)p + (__builtin_convertvector(n, Masks) << 23));
}

/* ---------------------------------------------------------------- estimators */

INLINE Floats derivative(const RowsCall *call, int kind, Floats z)
{
    const Floats zero = all(0);
    if (kind == ESTIMATE_CLIP)
        return choose(magnitude(z) <= all((float)call->a), all(1), zero);
    if (kind == ESTIMATE_TRIANGLE) {
        const Floats h = magnitude(z) * all(-2) + all(2);
        return choose(h < zero, zero, h);
    }
    /* k t (1 - tanh(t z)^2) = 4 k t e / (1 + e)^2 with e = exp(-2 |t z|) */
    const Floats t = all((float)call->a), e = exp_negative(magnitude(z * t) * all(-2)), one = all(1);
    return all(4 * (float)call->a * (float)call->b) * e / ((one + e) * (one + e));
}

typedef struct {
    float centre, radius, divisor;
} RowNumbers;

INLINE float at(const float *numbers, int64_t row, float otherwise)
{
    return numbers ? numbers[row] : otherwise;
}

/* dx = g / divisor * h(z), z = (x - centre) / radius, and sums of g, dx and sign(z) g - z dx */
INLINE void estimate_row(const RowsCall *call, int64_t row, const float *x, const float *g, float *dx, int64_t n,
                         int kind, int scaled, int summed)
{
    const int64_t k = row % call->period;
    const float centre = at(call->centre, k, 0), radius = at(call->radius, k, 1);
    /* Factors: a vector's division takes as long as all else that is done to it. */
    const Floats inverse = all(1 / radius), factor = all(1 / at(call->divisor, k, 1));
    double sums[3] = {0, 0, 0};
    for (int64_t from = 0; from < n; from += STRIP) {
        const int64_t stop = n - from < STRIP ? n : from + STRIP;
        Floats g_sum = all(0), dx_sum = all(0), radius_sum = all(0);
        EACH_WIDE(i, from, stop,
            const Floats difference = take(x + i, left) - all(centre);
            Floats z = difference;
            if (scaled)
                z = z * inverse;
            Floats gradient = take(g + i, left);
            if (call->divisor)
                gradient = gradient * factor;
            const Floats d = derivative(call, kind, z) * gradient;
            put(dx + i, d, left);
            if (summed) {
                g_sum += gradient;
                dx_sum += d;
                radius_sum += choose(difference < all(0), -gradient, gradient) - z * d;
            });
        if (summed) {
            sums[0] += total(g_sum);
            sums[1] += total(dx_sum);
            sums[2] += total(radius_sum);
        }
    }
    if (!summed)
        return;
    if (call->sums)
        memcpy(call->sums + row * ROW_SUMS, sums, sizeof sums);
    if (call->op != ROWS_ESTIMATE_FILTER)
        return;
    /* The gradient through a filter's mean and deviation: u / n times the third sum, and the mean of g (1 - h). */
    const float shift = (float)((sums[0] - sums[1]) / (double)n);
    const float stretch = radius > (float)FILTER_EPS ? (float)(sums[2] / (double)n) : 0;
    EACH_WIDE(i, 0, n,
        const Floats u = (take(x + i, left) - all(centre)) * inverse;
        put(dx + i, u * all(stretch) + take(dx + i, left) + all(shift), left););
}

INLINE void estimate_of_kind(const RowsCall *call, int64_t row, const float *x, const float *g, float *dx, int64_t n,
                             int kind)
{
    const int scaled = call->radius != NULL, summed = call->sums || call->op == ROWS_ESTIMATE_FILTER;
    if (summed)
        estimate_row(call, row, x, g, dx, n, kind, scaled, 1);
    else
        estimate_row(call, row, x, g, dx, n, kind, scaled, 0);
}

/* ---------------------------------------------------------------- values */

INLINE void split_row(const RowsCall *call, int64_t row, const float *x, float *out, int64_t n)
{
    const int64_t k = row % call->period;
    const float centre = at(call->centre, k, 0);
    const Floats low = all(at(call->low, k, -1)), high = all(at(call->high, k, 1));
    EACH_WIDE(i, 0, n, put(out + i, choose(take(x + i, left) < all(centre), low, high), left););
}

/* mean |x| */
INLINE void magnitude_row(const RowsCall *call, int64_t row, const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t from = 0; from < n; from += STRIP) {
        const int64_t stop = n - from < STRIP ? n : from + STRIP;
        Floats part = all(0);
        EACH_WIDE(i, from, stop, part += magnitude(take(x + i, left)););
        sum += total(part);
    }
    call->sums[row * ROW_SUMS] = sum / (double)n;
}

/* mean and sqrt(mean (x - mean)^2) */
INLINE void deviation_row(const RowsCall *call, int64_t row, const float *x, int64_t n)
{
    double sum = 0, squares = 0;
    for (int64_t from = 0; from < n; from += STRIP) {
        const int64_t stop = n - from < STRIP ? n : from + STRIP;
        Floats part = all(0);
        EACH_WIDE(i, from, stop, part += take(x + i, left););
        sum += total(part);
    }
    const float mean = (float)(sum / (double)n);
    for (int64_t from = 0; from < n; from += STRIP) {
        const int64_t stop = n - from < STRIP ? n : from + STRIP;
        Floats part = all(0);
        int64_t i = from;
        for (; i + WIDE <= stop; i += WIDE) {
            const Floats d = take(x + i, WIDE) - all(mean);
            part += d * d;
        }
        squares += total(part);
        for (; i < stop; i++)
            squares += (double)(x[i] - mean) * (double)(x[i] - mean);
    }
    call->sums[row * ROW_SUMS] = (double)mean;
    call->sums[row * ROW_SUMS + 1] = sqrt(squares / (double)n);
}

/* ---------------------------------------------------------------- bent lines */

/* y = (positive z above 0, negative z below) + post, z = x - centre */
INLINE void bend_row(const RowsCall *call, int64_t row, const float *x, float *y, int64_t n)
{
    const int64_t k = row % call->period;
    const Floats centre = all(at(call->centre, k, 0)), post = all(at(call->post, k, 0));
    const Floats positive = all(at(call->high, k, 1)), negative = all(at(call->low, k, 1));
    EACH_WIDE(i, 0, n,
        const Floats z = take(x + i, left) - centre;
        put(y + i, z * choose(z > all(0), positive, negative) + post, left););
}

/* dx, and sums of g z above 0 and below, g and dx. `kind`: whether the negative slope also holds at 0. */
INLINE void unbend_row(const RowsCall *call, int64_t row, const float *x, const float *g, float *dx, int64_t n)
{
    const int64_t k = row % call->period;
    const Floats centre = all(at(call->centre, k, 0)), zero = all(0);
    const Floats positive = all(at(call->high, k, 1)), negative = all(at(call->low, k, 1));
    const Floats middle = call->kind ? negative : zero;
    double sums[4] = {0, 0, 0, 0};
    for (int64_t from = 0; from < n; from += STRIP) {
        const int64_t stop = n - from < STRIP ? n : from + STRIP;
        Floats above = zero, under = zero, g_sum = zero, dx_sum = zero;
        EACH_WIDE(i, from, stop,
            const Floats z = take(x + i, left) - centre, gradient = take(g + i, left), product = z * gradient;
            const Masks up = z > zero, down = z < zero;
            const Floats d = gradient * choose(up, positive, choose(down, negative, middle));
            put(dx + i, d, left);
            above += choose(up, product, zero);
            under += choose(down, product, zero);
            g_sum += gradient;
            dx_sum += d;);
        sums[0] += total(above);
        sums[1] += total(under);
        sums[2] += total(g_sum);
        sums[3] += total(dx_sum);
    }
    memcpy(call->sums + row * ROW_SUMS, sums, sizeof sums);
}

/* ---------------------------------------------------------------- other layouts */

typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t QuadIndex __attribute__((vector_size(16)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (QuadIndex){__VA_ARGS__})
#endif

/* Four channels of four pixels, which lie `step` apart -> of each channel four pixels. */
INLINE void turn(const float *x, int64_t step, Quad out[4])
{
    const Quad a = *(const Quad *)x, b = *(const Quad *)(x + step);
    const Quad c = *(const Quad *)(x + 2 * step), d = *(const Quad *)(x + 3 * step);
    const Quad ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5);
    const Quad ab2 = SHUFFLE(a, b, 2, 6, 3, 7), cd2 = SHUFFLE(c, d, 2, 6, 3, 7);
    out[0] = SHUFFLE(ab, cd, 0, 1, 4, 5);
    out[1] = SHUFFLE(ab, cd, 2, 3, 6, 7);
    out[2] = SHUFFLE(ab2, cd2, 0, 1, 4, 5);
    out[3] = SHUFFLE(ab2, cd2, 2, 3, 6, 7);
}

/* An image of [channels][pixels] from one of [pixels][channels]; `length` is the number of pixels, `period` that of
 * channels, and a row 16 channels of an image. */
INLINE void planes_row(const RowsCall *call, int64_t row)
{
    const int64_t channels = call->period, pixels = call->length, blocks = (channels + WIDE - 1) / WIDE;
    const int64_t image = row / blocks, first = row % blocks * WIDE;
    const int64_t n = channels - first < WIDE ? channels - first : WIDE;
    const float *x = call->x + image * pixels * channels + first;
    float *out = call->out + (image * channels + first) * pixels;
    int64_t i = 0;
    for (; i + WIDE <= pixels && n == WIDE; i += WIDE)
        for (int c = 0; c < WIDE; c += 4) {
            Quad parts[4][4];
            for (int p = 0; p < 4; p++)
                turn(x + (i + 4 * p) * channels + c, channels, parts[p]);
            for (int k = 0; k < 4; k++)
                for (int p = 0; p < 4; p++)
                    *(Quad *)(out + (c + k) * pixels + i + 4 * p) = parts[p][k];
        }
    for (; i < pixels; i++)
        for (int64_t c = 0; c < n; c++)
            out[c * pixels + i] = x[i * channels + c];
}

static TARGET void VARIANT(rows)(const RowsCall *call, int64_t begin, int64_t end)
{
    for (int64_t row = begin; row < end; row++) {
        const int64_t from = row * call->length;
        const int64_t n = call->total - from < call->length ? call->total - from : call->length;
        const float *x = call->x + from, *g = call->g ? call->g + from : NULL;
        float *out = call->out ? call->out + from : NULL;
        switch (call->op) {
        case ROWS_SPLIT: split_row(call, row, x, out, n); break;
        case ROWS_MAGNITUDE: magnitude_row(call, row, x, n); break;
        case ROWS_DEVIATION: deviation_row(call, row, x, n); break;
        case ROWS_BEND: bend_row(call, row, x, out, n); break;
        case ROWS_UNBEND: unbend_row(call, row, x, g, out, n); break;
        case ROWS_PLANES: planes_row(call, row); break;
        default: /* ROWS_ESTIMATE, ROWS_ESTIMATE_FILTER */
            if (call->kind == ESTIMATE_CLIP)
                estimate_of_kind(call, row, x, g, out, n, ESTIMATE_CLIP);
            else if (call->kind == ESTIMATE_TRIANGLE)
                estimate_of_kind(call, row, x, g, out, n, ESTIMATE_TRIANGLE);
            else
                estimate_of_kind(call, row, x, g, out, n, ESTIMATE_DECAY);
        }
    }
}

/* ---------------------------------------------------------------- weights */

/* One filter [I][taps] -> words [taps][words of I], bit = w < threshold. */
INLINE void filter_words(const float *w, float threshold, int64_t channels, int64_t taps, uint32_t *words)
{
    const int64_t count = (channels + 31) / 32;
    memset(words, 0, (size_t)(taps * count) * sizeof(uint32_t));
    for (int64_t k = 0; k < count; k++) {
        const int64_t last = channels - 32 * k < 32 ? channels - 32 * k : 32;
        const float *from = w + 32 * k * taps;
        if (taps == 1) {
            float lanes[32] __attribute__((aligned(64))), limit[32] __attribute__((aligned(64)));
            for (int c = 0; c < 32; c++)
                limit[c] = threshold;
            memset(lanes, 0, sizeof lanes);
            memcpy(lanes, from, (size_t)last * sizeof(float));
            words[k] = less_f32(lanes, limit) & (last == 32 ? ~(uint32_t)0 : ((uint32_t)1 << last) - 1);
            continue;
        }
        for (int64_t first = 0; first < taps; first += WIDE) {
            const int64_t n = taps - first < WIDE ? taps - first : WIDE;
            Masks bits = {0};
            for (int64_t c = 0; c < last; c++) {
                const float *values = from + c * taps + first;
                /* Reading on into the next channel is harmless, but not beyond the filter's end. */
                const int64_t readable = (last - c) * taps - first;
                const Floats v = take(values, readable < WIDE ? n : WIDE);
                bits |= (v < all(threshold)) & (int32_t)((uint32_t)1 << c);
            }
            for (int64_t t = 0; t < n; t++)
                words[(first + t) * count + k] = (uint32_t)bits[t];
        }
    }
}

static TARGET void VARIANT(filters)(const FiltersCall *call, int64_t begin, int64_t end)
{
    const int64_t taps = call->kernel_height * call->kernel_width, per_tap = (call->channels + 31) / 32;
    const int64_t words = taps * per_tap, columns = call->kernel_width + 1;
    for (int64_t o = begin; o < end; o++) {
        uint32_t *own = call->scratch + o * words;
        const float *w = call->weight + o * call->channels * taps;
        filter_words(w, call->threshold ? call->threshold[o] : 0, call->channels, taps, own);
        const int64_t block = o / call->lanes, lane = o % call->lanes;
        uint32_t *to = call->data + block * words * call->lanes;
        for (int64_t k = 0; k < words; k++) {
            if (call->layout == LAYOUT_LANES)
                to[k * call->lanes + lane] = own[k];
            else if (call->layout == LAYOUT_ROWS)
                to[lane * words + k] = own[k];
            else
                for (int b = 0; b < 4; b++)
                    ((uint8_t *)to)[(4 * k + b) * call->lanes + lane] = (uint8_t)(own[k] >> 8 * b);
        }
        for (int64_t y = 1; y <= call->kernel_height; y++) {
            int32_t row = 0;
            for (int64_t x = 1; x < columns; x++) {
                const uint32_t *tap = own + ((y - 1) * call->kernel_width + x - 1) * per_tap;
                int32_t lower = 0;
                for (int64_t k = 0; k < per_tap; k++)
                    lower += __builtin_popcount(tap[k]);
                row += (int32_t)call->channels - 2 * lower;
                call->corner_sums[(y * columns + x) * call->padded + o] =
                    row + call->corner_sums[((y - 1) * columns + x) * call->padded + o];
            }
        }
    }
}
