/* Elementwise work of training: rows of float32 or bfloat16, each with its own few numbers, one pass over memory.
 * bfloat16 is widened when it is read and rounded to even when it is written; all else is float32.
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
typedef uint32_t Words __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));

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

/* The same from the i-th element of an array of float32 or bfloat16. */
INLINE Floats take_at(const void *from, int64_t i, int64_t n, int half)
{
    if (!half)
        return take((const float *)from + i, n);
    const uint16_t *at = (const uint16_t *)from + i;
    Halves a = {0};
    if (n >= WIDE)
        a = *(const Halves *)at;
    else
        memcpy(&a, at, (size_t)n * sizeof *at);
    return (Floats)(__builtin_convertvector(a, Words) << 16);
}

INLINE void put_at(void *to, int64_t i, Floats a, int64_t n, int half)
{
    if (!half) {
        put((float *)to + i, a, n);
        return;
    }
    uint16_t *at = (uint16_t *)to + i;
    const Words bits = (Words)a, even = (bits >> 16) & 1;
    const Words rounded = (bits + 0x7fff + even) >> 16, quiet = (bits >> 16) | 0x40;
    const Masks number = a == a;
    const Halves b = __builtin_convertvector(((Words)number & rounded) | (~(Words)number & quiet), Halves);
    if (n >= WIDE)
        *(Halves *)at = b;
    else
        memcpy(at, &b, (size_t)n * sizeof *at);
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

/* What is done to one vector: dx = g h(z), z = difference / radius, and what it adds to the sums of g, dx and
 * sign(z) g - z dx. */
INLINE Floats estimated(const RowsCall *call, int kind, Floats difference, Floats z, Floats gradient, Floats sums[3],
                        int summed)
{
    const Floats d = derivative(call, kind, z) * gradient;
    if (summed) {
        sums[0] += gradient;
        sums[1] += d;
        sums[2] += choose(difference < all(0), -gradient, gradient) - z * d;
    }
    return d;
}

/* dx = g / divisor * h(z), z = (x - centre) / radius, and its sums */
INLINE void estimate_row(const RowsCall *call, int64_t row, const void *x, const void *g, void *dx, int64_t n,
                         int kind, int scaled, int summed, int half)
{
    const int64_t k = row % call->period;
    const float centre = at(call->centre, k, 0), radius = at(call->radius, k, 1);
    /* Factors: a vector's division takes as long as all else that is done to it. */
    const Floats inverse = all(1 / radius), factor = all(1 / at(call->divisor, k, 1));
    double sums[3] = {0, 0, 0};
    for (int64_t from = 0; from < n; from += STRIP) {
        const int64_t stop = n - from < STRIP ? n : from + STRIP;
        Floats parts[3] = {all(0), all(0), all(0)};
        EACH_WIDE(i, from, stop,
            const Floats difference = take_at(x, i, left, half) - all(centre);
            Floats z = difference;
            if (scaled)
                z = z * inverse;
            Floats gradient = take_at(g, i, left, half);
            if (call->divisor)
                gradient = gradient * factor;
            put_at(dx, i, estimated(call, kind, difference, z, gradient, parts, summed), left, half););
        if (summed)
            for (int j = 0; j < 3; j++)
                sums[j] += total(parts[j]);
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
        const Floats u = (take_at(x, i, left, half) - all(centre)) * inverse;
        put_at(dx, i, u * all(stretch) + take_at(dx, i, left, half) + all(shift), left, half););
}

INLINE void estimate_of_kind(const RowsCall *call, int64_t row, const void *x, const void *g, void *dx, int64_t n,
                             int kind, int half)
{
    const int scaled = call->radius != NULL, summed = call->sums || call->op == ROWS_ESTIMATE_FILTER;
    if (summed)
        estimate_row(call, row, x, g, dx, n, kind, scaled, 1, half);
    else
        estimate_row(call, row, x, g, dx, n, kind, scaled, 0, half);
}

/* ---------------------------------------------------------------- values */

INLINE void split_row(const RowsCall *call, int64_t row, const void *x, void *out, int64_t n, int half)
{
    const int64_t k = row % call->period;
    const float centre = at(call->centre, k, 0);
    const Floats low = all(at(call->low, k, -1)), high = all(at(call->high, k, 1));
    EACH_WIDE(i, 0, n, put_at(out, i, choose(take_at(x, i, left, half) < all(centre), low, high), left, half););
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

typedef struct {
    Floats centre, positive, negative, middle, post;
} Line;

/* y = (positive z above 0, negative z below) + post, z = x - centre */
INLINE Floats line_value(const Line *line, Floats x)
{
    const Floats z = x - line->centre;
    return z * choose(z > all(0), line->positive, line->negative) + line->post;
}

/* dx, and what it adds to the sums of g z above 0 and below, of g and of dx */
INLINE Floats line_gradient(const Line *line, Floats x, Floats gradient, Floats sums[4])
{
    const Floats zero = all(0), z = x - line->centre, product = z * gradient;
    const Masks up = z > zero, down = z < zero;
    const Floats d = gradient * choose(up, line->positive, choose(down, line->negative, line->middle));
    sums[0] += choose(up, product, zero);
    sums[1] += choose(down, product, zero);
    sums[2] += gradient;
    sums[3] += d;
    return d;
}

INLINE Line line_of_row(const RowsCall *call, int64_t row)
{
    const int64_t k = row % call->period;
    const Floats negative = all(at(call->low, k, 1));
    return (Line){all(at(call->centre, k, 0)), all(at(call->high, k, 1)), negative,
                  call->kind ? negative : all(0), all(at(call->post, k, 0))};
}

INLINE void bend_row(const RowsCall *call, int64_t row, const void *x, void *y, int64_t n, int half)
{
    const Line line = line_of_row(call, row);
    EACH_WIDE(i, 0, n, put_at(y, i, line_value(&line, take_at(x, i, left, half)), left, half););
}

/* `kind`: whether the negative slope also holds at 0. */
INLINE void unbend_row(const RowsCall *call, int64_t row, const void *x, const void *g, void *dx, int64_t n, int half)
{
    const Line line = line_of_row(call, row);
    double sums[4] = {0, 0, 0, 0};
    for (int64_t from = 0; from < n; from += STRIP) {
        const int64_t stop = n - from < STRIP ? n : from + STRIP;
        Floats parts[4] = {all(0), all(0), all(0), all(0)};
        EACH_WIDE(i, from, stop,
            put_at(dx, i, line_gradient(&line, take_at(x, i, left, half), take_at(g, i, left, half), parts), left, half););
        for (int j = 0; j < 4; j++)
            sums[j] += total(parts[j]);
    }
    memcpy(call->sums + row * ROW_SUMS, sums, sizeof sums);
}

/* ---------------------------------------------------------------- channels that are neighbours */

INLINE Floats of_channels(const float *numbers, int64_t c, int64_t n, float otherwise)
{
    return numbers ? take(numbers + c, n) : all(otherwise);
}

/* Pixels of `period` channels, 16 channels at a time; sums keep partial sums for 512 pixels. */
INLINE void across_row(const RowsCall *call, int64_t row, const void *x, const void *g, void *out, int64_t n, int op,
                       int kind, int half)
{
    const int64_t channels = call->period;
    for (int64_t c = 0; c < channels; c += WIDE) {
        const int64_t left = channels - c < WIDE ? channels - c : WIDE;
        const Floats low = of_channels(call->low, c, left, op == ROWS_SPLIT ? -1 : 1);
        const Line line = {of_channels(call->centre, c, left, 0), of_channels(call->high, c, left, 1), low,
                           call->kind ? low : all(0), of_channels(call->post, c, left, 0)};
        /* Of the lanes beyond the last channel nothing is written; 1 keeps them finite. */
        Floats inverse = all(1), factor = all(1);
        if (op == ROWS_ESTIMATE)
            for (int64_t j = 0; j < left; j++) {
                inverse[j] = 1 / at(call->radius, c + j, 1);
                factor[j] = 1 / at(call->divisor, c + j, 1);
            }
        double sums[ROW_SUMS][WIDE] = {{0}};
        for (int64_t from = c; from < n; from += STRIP * channels) {
            const int64_t stop = n - from < STRIP * channels ? n : from + STRIP * channels;
            Floats parts[ROW_SUMS] = {all(0), all(0), all(0), all(0)};
            for (int64_t i = from; i < stop; i += channels) {
                const Floats value = take_at(x, i, left, half);
                Floats result;
                if (op == ROWS_SPLIT)
                    result = choose(value < line.centre, low, line.positive);
                else if (op == ROWS_BEND)
                    result = line_value(&line, value);
                else if (op == ROWS_UNBEND)
                    result = line_gradient(&line, value, take_at(g, i, left, half), parts);
                else {
                    const Floats difference = value - line.centre;
                    result = estimated(call, kind, difference, difference * inverse,
                                       take_at(g, i, left, half) * factor, parts, 1);
                }
                put_at(out, i, result, left, half);
            }
            for (int k = 0; k < ROW_SUMS; k++)
                for (int j = 0; j < WIDE; j++)
                    sums[k][j] += (double)parts[k][j];
        }
        if (call->sums)
            for (int64_t j = 0; j < left; j++)
                for (int k = 0; k < ROW_SUMS; k++)
                    call->sums[(row * channels + c + j) * ROW_SUMS + k] = sums[k][j];
    }
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
    const float *x = (const float *)call->x + image * pixels * channels + first;
    float *out = (float *)call->out + (image * channels + first) * pixels;
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

/* The work on one row, compiled for each type of element. */
INLINE void one_row(const RowsCall *call, int64_t row, const void *x, const void *g, void *out, int64_t n, int half)
{
    const int op = (int)call->op, kind = (int)call->kind;
    if (call->across) {
        if (op == ROWS_SPLIT)
            across_row(call, row, x, g, out, n, ROWS_SPLIT, 0, half);
        else if (op == ROWS_BEND)
            across_row(call, row, x, g, out, n, ROWS_BEND, 0, half);
        else if (op == ROWS_UNBEND)
            across_row(call, row, x, g, out, n, ROWS_UNBEND, 0, half);
        else if (kind == ESTIMATE_CLIP)
            across_row(call, row, x, g, out, n, ROWS_ESTIMATE, ESTIMATE_CLIP, half);
        else if (kind == ESTIMATE_TRIANGLE)
            across_row(call, row, x, g, out, n, ROWS_ESTIMATE, ESTIMATE_TRIANGLE, half);
        else
            across_row(call, row, x, g, out, n, ROWS_ESTIMATE, ESTIMATE_DECAY, half);
        return;
    }
    switch (op) {
    case ROWS_SPLIT: split_row(call, row, x, out, n, half); break;
    case ROWS_BEND: bend_row(call, row, x, out, n, half); break;
    case ROWS_UNBEND: unbend_row(call, row, x, g, out, n, half); break;
    default: /* ROWS_ESTIMATE, ROWS_ESTIMATE_FILTER */
        if (kind == ESTIMATE_CLIP)
            estimate_of_kind(call, row, x, g, out, n, ESTIMATE_CLIP, half);
        else if (kind == ESTIMATE_TRIANGLE)
            estimate_of_kind(call, row, x, g, out, n, ESTIMATE_TRIANGLE, half);
        else
            estimate_of_kind(call, row, x, g, out, n, ESTIMATE_DECAY, half);
    }
}

static TARGET void VARIANT(rows)(const RowsCall *call, int64_t begin, int64_t end)
{
    const int64_t size = call->half ? sizeof(uint16_t) : sizeof(float);
    for (int64_t row = begin; row < end; row++) {
        const int64_t from = row * call->length;
        const int64_t n = call->total - from < call->length ? call->total - from : call->length;
        const char *x = (const char *)call->x + from * size, *g = call->g ? (const char *)call->g + from * size : NULL;
        char *out = call->out ? (char *)call->out + from * size : NULL;
        switch (call->op) {
        case ROWS_MAGNITUDE: magnitude_row(call, row, (const float *)x, n); break;
        case ROWS_DEVIATION: deviation_row(call, row, (const float *)x, n); break;
        case ROWS_PLANES: planes_row(call, row); break;
        default:
            if (call->half)
                one_row(call, row, x, g, out, n, 1);
            else
                one_row(call, row, x, g, out, n, 0);
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
