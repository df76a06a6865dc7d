/* The kernels without Python: random convolutions against loops over taps, elementwise kernels against their formulas.
 * For sanitizers and other processors.
 *
 *     check_kernels [cases] [seed]
 *
 * Every buffer has exactly the size that the call may touch. See check_kernels.sh. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

static uint64_t state;

static int64_t draw(int64_t low, int64_t high)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return low + (int64_t)((state >> 16) % (uint64_t)(high - low + 1));
}

static float real(void)
{
    return (float)draw(-1000, 1000) / 257.0f;
}

/* The last buffers that were made, to tell the kernels how long each is. */
static struct {
    int64_t address, bytes;
} made[1 << 16];
static int64_t made_count;

static void *buffer(int64_t bytes)
{
    void *memory = malloc((size_t)(bytes ? bytes : 1));
    if (!memory)
        exit(2);
    memset(memory, 0, (size_t)bytes);
    made[made_count % (1 << 16)].address = (int64_t)(intptr_t)memory;
    made[made_count++ % (1 << 16)].bytes = bytes;
    return memory;
}

static int64_t length_of(int64_t address)
{
    for (int64_t i = made_count - 1; i >= 0 && i > made_count - (1 << 16); i--)
        if (made[i % (1 << 16)].address == address)
            return made[i % (1 << 16)].bytes;
    return 0;
}

/* Tells the length of every buffer of a call. */
#define IGNORE(name)
#define LENGTH(name) call->name##_bytes = length_of(call->name);
#define LENGTH_OF_ARRAY(type, name) call->name##_bytes = length_of((int64_t)(intptr_t)call->name);

static const char *conv(const Variant *variant, ConvCall *call)
{
    CONV_FIELDS(IGNORE, LENGTH)
    return convolve(variant, call);
}

static const char *rows(const Variant *variant, RowsCall *call)
{
    ROW_ADDRESSES(LENGTH_OF_ARRAY)
    return run_rows(variant, call);
}

static const char *filters(const Variant *variant, FiltersCall *call)
{
    FILTER_ADDRESSES(LENGTH_OF_ARRAY)
    return run_filters(variant, call);
}

static const char *floats(const Variant *variant, FloatCall *call)
{
    FLOAT_FIELDS(IGNORE, LENGTH)
    return run_floats(variant, call);
}

static float *reals(int64_t n)
{
    float *values = buffer(n * 4);
    for (int64_t i = 0; i < n; i++)
        values[i] = draw(0, 9) ? real() : 0.0f;
    return values;
}

/* ------------------------------------------------------------ one case, and its truth */

typedef struct {
    ConvCall call;
    uint8_t *filters;              /* [O][kh][kw][I]: 1 is the lower value */
    uint8_t *lower;                /* [planes][N][H][W][C] */
    int32_t *dots;                 /* [planes][N][H'][W'][O] */
    float *result;
    uint32_t *limit_bits, *next_bits;
} Case;

#define F(address) ((float *)(intptr_t)(address))

static int tap_position(const ConvCall *c, int64_t y, int64_t x, int64_t i, int64_t j, int64_t *row, int64_t *column)
{
    *row = y * c->stride_height - c->pad_top + i * c->dilation_height;
    *column = x * c->stride_width - c->pad_left + j * c->dilation_width;
    return *row >= 0 && *row < c->height && *column >= 0 && *column < c->width;
}

static float activate(const ConvCall *c, int64_t o, float y)
{
    const float *p = F(c->activation);
    const int64_t n = c->out_channels;
    const float z = y + p[o];
    return (z > 0 ? p[n + o] * z : p[2 * n + o] * z) + p[3 * n + o];
}

static void set_bit(uint32_t *words, int64_t pixel, int64_t o, int64_t n, int bit)
{
    words[pixel * ((n + 31) / 32) + o / 32] |= (uint32_t)bit << (o % 32);
}

static void solve_value(Case *k, int64_t image, int64_t y, int64_t x, int64_t o)
{
    const ConvCall *c = &k->call;
    const int64_t inputs = c->channels / c->groups, group = o / (c->out_channels / c->groups);
    const int64_t pixel = (image * c->out_height + y) * c->out_width + x, n = c->out_channels;
    int64_t dots[MAX_PLANES] = {0}, window = 0, sum = 0, count = 0, row, column;
    for (int64_t i = 0; i < c->kernel_height; i++)
        for (int64_t j = 0; j < c->kernel_width; j++) {
            const int inside = tap_position(c, y, x, i, j, &row, &column);
            for (int64_t m = 0; m < inputs; m++) {
                const int64_t tap = (o * c->kernel_height + i) * c->kernel_width + j;
                const int64_t w = 1 - 2 * k->filters[tap * inputs + m];
                for (int64_t plane = 0; plane < c->planes; plane++) {
                    int64_t a = c->pad_value;
                    if (inside) {
                        const int64_t at = ((plane * c->batch + image) * c->height + row) * c->width + column;
                        const int64_t lower = k->lower[at * c->channels + group * inputs + m];
                        a = c->zero_one ? 1 - lower : 1 - 2 * lower;
                    }
                    dots[plane] += a * w;
                    if (plane == 0)
                        window += a;
                }
                if (inside || c->pad_value) {
                    sum += w;
                    count++;
                }
            }
        }
    const int64_t outputs = c->batch * c->out_height * c->out_width * n;
    for (int64_t plane = 0; plane < c->planes; plane++)
        k->dots[plane * outputs + pixel * n + o] = (int32_t)dots[plane];
    if (c->limit) {
        const int flip = ((uint32_t *)(intptr_t)c->flip)[o / 32] >> (o % 32) & 1;
        set_bit(k->limit_bits, pixel, o, n, (dots[0] < ((int32_t *)(intptr_t)c->limit)[o]) ^ flip);
    }
    float v = F(c->scale)[o] * (float)dots[0];
    for (int64_t plane = 1; plane < c->planes; plane++)
        v = v + F(c->scale)[plane * n + o] * (float)dots[plane];
    if (c->window_scale)
        v = v + F(c->window_scale)[o] * (float)window;
    float constant = F(c->shift)[o];
    if (c->border)
        constant = (F(c->border)[o] * (float)sum + F(c->border)[n + o] * (float)count) + constant;
    v = v + constant;
    if (c->activation && c->activation_first)
        v = activate(c, o, v);
    if (c->residual)
        v = v + F(c->residual)[pixel * n + o];
    if (c->activation && !c->activation_first)
        v = activate(c, o, v);
    k->result[pixel * n + o] = v;
    set_bit(k->next_bits, pixel, o, n, v < F(c->next_threshold)[o]);
}

/* ------------------------------------------------------------ layouts, as layout.py describes them */

static void lay_out(const Case *k, const Variant *variant, ConvCall *c)
{
    const int64_t inputs = c->channels / c->groups, outputs = c->out_channels / c->groups;
    const int64_t taps = c->kernel_height * c->kernel_width, total = (c->channels + 31) / 32;
    c->masked = c->groups > 1 && (inputs % 32 || outputs % variant->lanes);
    const int64_t lanes = c->masked ? variant->masked_lanes : variant->lanes;
    const int64_t blocks = (c->out_channels + lanes - 1) / lanes, padded = blocks * lanes;
    int32_t *starts = buffer(blocks * 4), *sums;
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t last = ((b + 1) * lanes < c->out_channels ? (b + 1) * lanes : c->out_channels) - 1;
        const int64_t end = ((last / outputs + 1) * inputs + 31) / 32;
        starts[b] = (int32_t)(b * lanes / outputs * inputs / 32);
        c->span = end - starts[b] > c->span ? end - starts[b] : c->span;
    }
    const int64_t words = taps * c->span, words_of_block = words * lanes * (c->masked ? 2 : 1);
    uint32_t *weight = buffer(blocks * words_of_block * 4);
    for (int64_t b = 0; b < blocks; b++)
        starts[b] = starts[b] < total - c->span ? starts[b] : (int32_t)(total - c->span);
    sums = buffer((c->kernel_height + 1) * (c->kernel_width + 1) * padded * 4);
    for (int64_t o = 0; o < c->out_channels; o++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t m = 0; m < inputs; m++) {
                const int64_t b = o / lanes, lane = o % lanes, channel = o / outputs * inputs + m - 32 * starts[b];
                const int64_t word = t * c->span + channel / 32;
                const uint32_t bit = (uint32_t)k->filters[(o * taps + t) * inputs + m] << (channel % 32);
                uint32_t *block = weight + b * words_of_block;
                if (c->masked) {
                    block[2 * word * lanes + lane] |= bit;
                    block[(2 * word + 1) * lanes + lane] |= (uint32_t)1 << (channel % 32);
                } else if (!strcmp(variant->layout, "rows"))
                    block[lane * words + word] |= bit;
                else if (!strcmp(variant->layout, "lanes"))
                    block[word * lanes + lane] |= bit;
                else
                    for (int byte = 0; byte < 4; byte++)
                        ((uint8_t *)block)[(word * 4 + byte) * lanes + lane] |= (uint8_t)(bit >> (8 * byte));
                for (int64_t i = t / c->kernel_width + 1; i <= c->kernel_height; i++)
                    for (int64_t j = t % c->kernel_width + 1; j <= c->kernel_width; j++)
                        sums[(i * (c->kernel_width + 1) + j) * padded + o] += bit ? -1 : 1;
            }
    c->weight = (int64_t)(intptr_t)weight;
    c->starts = (int64_t)(intptr_t)starts;
    c->corner_sums = (int64_t)(intptr_t)sums;
}

/* ------------------------------------------------------------ comparison */

static int wrong(const char *what, const Variant *variant, const char *error, const void *got, const void *want,
                 int64_t bytes)
{
    if (!error && !memcmp(got, want, (size_t)bytes))
        return 0;
    printf("%s: %s differ%s%s\n", variant->name, what, error ? ": " : "", error ? error : "");
    return 1;
}

/* What lays out latent weights in one pass must give the same. */
static int check_filters(const Case *k, const Variant *variant, const ConvCall *laid_out)
{
    const ConvCall *c = &k->call;
    const int64_t taps = c->kernel_height * c->kernel_width, lanes = variant->lanes;
    const int64_t padded = (c->out_channels + lanes - 1) / lanes * lanes, n = c->out_channels * c->channels;
    const int64_t words = padded * taps * laid_out->span;
    const int64_t corners = (c->kernel_height + 1) * (c->kernel_width + 1) * padded;
    float *latent = buffer(n * taps * 4);
    uint32_t *weight = buffer(words * 4);
    int32_t *sums = buffer(corners * 4);
    if (laid_out->masked)
        return 0;
    for (int64_t o = 0; o < c->out_channels; o++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t m = 0; m < c->channels; m++) {
                const int lower = k->filters[(o * taps + t) * c->channels + m];
                latent[(o * c->channels + m) * taps + t] = (lower ? -1.0f : 1.0f) * (float)draw(1, 9);
            }
    FiltersCall call = {.filters = c->out_channels, .channels = c->channels, .kernel_height = c->kernel_height,
                        .kernel_width = c->kernel_width, .lanes = lanes, .padded = padded, .threads = c->threads,
                        .weight = latent, .data = weight, .corner_sums = sums};
    const char *error = filters(variant, &call);
    return wrong("filters", variant, error, weight, F(laid_out->weight), words * 4) +
           wrong("corner sums", variant, error, sums, F(laid_out->corner_sums), corners * 4);
}

/* ------------------------------------------------------------ drawing a case */

static void draw_sizes(ConvCall *c)
{
    const int deep = !draw(0, 7);
    c->groups = draw(0, 2) ? 1 : draw(1, deep ? 9 : 40);
    c->channels = c->groups * (draw(0, 3) ? draw(1, c->groups > 1 ? 9 : 140) : 32 * draw(1, 2));
    c->channels = deep ? c->groups * draw(1, 1030 / c->groups) : c->channels;
    c->out_channels = c->groups * (draw(0, 3) ? draw(1, c->groups > 4 ? 4 : c->groups > 1 ? 70 : 140) : 64);
    c->kernel_height = draw(1, deep ? 3 : 7);
    c->kernel_width = draw(1, deep ? 3 : 7);
    c->stride_height = draw(1, 3);
    c->stride_width = draw(1, 3);
    c->dilation_height = draw(1, 3);
    c->dilation_width = draw(1, 3);
    c->pad_top = draw(0, 3);
    c->pad_bottom = draw(0, 3);
    c->pad_left = draw(0, 3);
    c->pad_right = draw(0, 3);
    const int64_t high = (c->kernel_height - 1) * c->dilation_height + 1 - c->pad_top - c->pad_bottom;
    const int64_t wide = (c->kernel_width - 1) * c->dilation_width + 1 - c->pad_left - c->pad_right;
    c->height = (high > 1 ? high : 1) + draw(0, 5);
    c->width = (wide > 1 ? wide : 1) + draw(0, 9);
    c->out_height = (c->height - high) / c->stride_height + 1;
    c->out_width = (c->width - wide) / c->stride_width + 1;
    c->pad_value = draw(-1, 1);
    c->batch = draw(1, 5);
    c->threads = draw(1, 3);
    c->input_kind = draw(INPUT_NHWC, INPUT_WORDS);
    c->planes = c->input_kind != INPUT_WORDS && !draw(0, 4) ? draw(2, 3) : 1;
    c->zero_one = draw(0, 1);
}

static void draw_input(Case *k)
{
    ConvCall *c = &k->call;
    const int64_t pixels = c->batch * c->height * c->width, words = (c->channels + 31) / 32;
    const int64_t plane = c->height * c->width;
    float *x = reals(pixels * c->channels), *thresholds = reals(c->planes * c->channels);
    uint32_t *packed = buffer(pixels * words * 4);
    k->lower = buffer(c->planes * pixels * c->channels);
    for (int64_t p = 0; p < c->planes * pixels; p++)
        for (int64_t m = 0; m < c->channels; m++) {
            const int64_t image = p % pixels / plane, at = p % plane;
            const float value = c->input_kind == INPUT_NCHW ? x[(image * c->channels + m) * plane + at]
                                                            : x[p % pixels * c->channels + m];
            const int lower = value < thresholds[p / pixels * c->channels + m];
            k->lower[p * c->channels + m] = (uint8_t)lower;
            packed[p % pixels * words + m / 32] |= (uint32_t)lower << (m % 32);
        }
    c->input = (int64_t)(intptr_t)(c->input_kind == INPUT_WORDS ? (void *)packed : (void *)x);
    c->thresholds = c->input_kind == INPUT_WORDS ? 0 : (int64_t)(intptr_t)thresholds;
}

static int64_t maybe(int64_t n)
{
    return draw(0, 1) ? (int64_t)(intptr_t)reals(n) : 0;
}

static void draw_case(Case *k)
{
    ConvCall *c = &k->call;
    draw_sizes(c);
    draw_input(k);
    const int64_t n = c->out_channels, outputs = c->batch * c->out_height * c->out_width * n;
    const int64_t weights = n * (c->channels / c->groups) * c->kernel_height * c->kernel_width;
    const int64_t words = outputs / n * ((n + 31) / 32);
    k->filters = buffer(weights);
    for (int64_t i = 0; i < weights; i++)
        k->filters[i] = (uint8_t)draw(0, 1);
    int32_t *limit = buffer(n * 4);
    uint32_t *flip = buffer((n + 31) / 32 * 4);
    for (int64_t o = 0; o < n; o++) {
        limit[o] = (int32_t)draw(-9, 9);
        flip[o / 32] |= (uint32_t)draw(0, 1) << (o % 32);
    }
    c->limit = (int64_t)(intptr_t)limit;
    c->flip = (int64_t)(intptr_t)flip;
    c->scale = (int64_t)(intptr_t)reals(c->planes * n);
    c->shift = (int64_t)(intptr_t)reals(n);
    c->next_threshold = (int64_t)(intptr_t)reals(n);
    c->window_scale = c->planes == 1 ? maybe(n) : 0;
    c->border = maybe(2 * n);
    c->residual = maybe(outputs);
    c->activation = maybe(4 * n);
    c->activation_first = draw(0, 1);
    k->dots = buffer(c->planes * outputs * 4);
    k->result = buffer(outputs * 4);
    k->limit_bits = buffer(words * 4);
    k->next_bits = buffer(words * 4);
    for (int64_t image = 0; image < c->batch; image++)
        for (int64_t y = 0; y < c->out_height; y++)
            for (int64_t x = 0; x < c->out_width; x++)
                for (int64_t o = 0; o < n; o++)
                    solve_value(k, image, y, x, o);
}

static int compare(const Case *k, const Variant *variant)
{
    ConvCall all = k->call, c;
    const int64_t n = all.out_channels, pixels = all.batch * all.out_height * all.out_width;
    const int64_t bytes = pixels * n * 4, word_bytes = pixels * ((n + 31) / 32) * 4;
    void *out = buffer(bytes), *words = buffer(word_bytes);
    int failures = 0;
    lay_out(k, variant, &all);
    failures += all.groups == 1 ? check_filters(k, variant, &all) : 0;
    const int64_t scale = all.scale, window_scale = all.window_scale, limit = all.limit, next = all.next_threshold;
    all.scale = all.window_scale = all.limit = all.next_threshold = 0;

    c = all;
    c.dots = (int64_t)(intptr_t)out;
    failures += wrong("dots", variant, conv(variant, &c), out, k->dots, bytes);
    c = all;
    c.limit = limit;
    c.bits = (int64_t)(intptr_t)words;
    failures += wrong("bits", variant, conv(variant, &c), words, k->limit_bits, word_bytes);
    c = all;
    c.scale = scale;
    c.window_scale = window_scale;
    c.result = (int64_t)(intptr_t)out;
    failures += wrong("floats", variant, conv(variant, &c), out, k->result, bytes);
    c.bits = (int64_t)(intptr_t)words;
    c.next_threshold = next;
    failures += wrong("next bits", variant, conv(variant, &c), words, k->next_bits, word_bytes);
    if (c.residual) { /* its memory may be the result's */
        memcpy(out, F(c.residual), (size_t)bytes);
        c.residual = c.result;
        failures += wrong("floats over the residual", variant, conv(variant, &c), out, k->result, bytes);
    }
    return failures;
}

/* ------------------------------------------------------------ elementwise */

/* The upper halves of floats, which are cut off below. */
static uint16_t *halves(float *values, int64_t n)
{
    uint16_t *out = buffer(n * 2);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, 4);
        bits &= 0xffff0000u;
        memcpy(values + i, &bits, 4);
        out[i] = (uint16_t)(bits >> 16);
    }
    return out;
}

static double written(const void *out, int64_t i, int64_t half)
{
    if (!half)
        return (double)((const float *)out)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)out)[i] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return (double)value;
}

static int check_rows(const Variant *v)
{
    const int64_t half = draw(0, 1), across = draw(0, 1), period = across ? draw(1, 40) : 1;
    const int64_t count = draw(1, 40), pixels = draw(1, across ? 40 : 700), short_of = draw(0, pixels - 1);
    const int64_t length = pixels * period, total = count * length - short_of * period;
    float *x = reals(total), *g = reals(total), *numbers[3];
    const float of_all[3] = {0.25f, 1.5f, -0.5f};
    for (int k = 0; k < 3; k++) {
        numbers[k] = buffer(period * 4);
        for (int64_t c = 0; c < period; c++)
            numbers[k][c] = of_all[k];
    }
    const void *x_read = half ? (void *)halves(x, total) : x, *g_read = half ? (void *)halves(g, total) : g;
    void *out = buffer(total * (half ? 2 : 4));
    double *sums = buffer(count * period * ROW_SUMS * (int64_t)sizeof(double));
    int bad = 0;
    for (int op = ROWS_SPLIT; op < ROWS_PLANES; op++) {
        const int weights = op == ROWS_MAGNITUDE || op == ROWS_DEVIATION || op == ROWS_ESTIMATE_FILTER;
        if ((weights && (half || across)) || (op == ROWS_ESTIMATE_FILTER && short_of))
            continue;
        RowsCall call = {.op = op, .kind = draw(0, 2), .rows = count, .length = length, .total = total, .period = period,
                         .half = half, .across = across, .threads = draw(1, 3), .x = x_read, .g = g_read, .out = out,
                         .centre = numbers[0], .radius = numbers[1], .low = numbers[2], .high = numbers[1],
                         .sums = sums, .a = 0.7, .b = 2.0};
        const char *wrong = rows(v, &call);
        for (int64_t i = 0; i < total && !bad && !wrong; i++) {
            const double z = (double)x[i] - 0.25, found = written(out, i, half);
            double expected = found;
            if (op == ROWS_SPLIT)
                expected = x[i] < 0.25f ? -0.5 : 1.5;
            else if (op == ROWS_BEND)
                expected = z * (z > 0 ? 1.5 : -0.5);
            else if (op == ROWS_ESTIMATE && call.kind == ESTIMATE_DECAY) {
                const double t = tanh(0.7 * z / 1.5);
                expected = (double)g[i] * 0.7 * 2 * (1 - t * t);
            }
            bad = fabs(found - expected) > 1e-5 + (half ? fabs(expected) / 256 : 0);
        }
        if (wrong || bad) {
            printf("%s rows, op %d: %s\n", v->name, op, wrong ? wrong : "differs");
            bad = 1;
        }
    }
    return bad;
}

static int check_planes(const Variant *v)
{
    const int64_t channels = draw(1, 70), pixels = draw(1, 90), images = draw(1, 3);
    const int64_t n = channels * pixels * images;
    float *x = reals(n), *out = buffer(n * 4);
    RowsCall call = {.op = ROWS_PLANES, .rows = images * ((channels + 15) / 16), .length = pixels, .total = n,
                     .period = channels, .threads = 1, .x = x, .out = out};
    int bad = rows(v, &call) != NULL;
    for (int64_t i = 0; i < n && !bad; i++) {
        const int64_t image = i / (channels * pixels), c = i / pixels % channels, p = i % pixels;
        bad = out[i] != x[(image * pixels + p) * channels + c];
    }
    if (bad)
        printf("%s planes differ\n", v->name);
    return bad;
}

/* ------------------------------------------------------------ float convolutions */

/* One output before the pool: a chain of fused multiply-adds in the order of the taps. */
static float solve_float(const FloatCall *c, const float *x, const float *weight, int64_t lanes, int64_t y,
                         int64_t column, int64_t o)
{
    const int64_t taps = c->kernel_height * c->kernel_width, plane = c->height * c->width;
    float sum = F(c->bias)[o];
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t m = 0; m < c->channels; m++) {
            const int64_t i = y * c->stride_height + tap / c->kernel_width - c->pad_top;
            const int64_t j = column * c->stride_width + tap % c->kernel_width - c->pad_left;
            float value = 0;
            if (i >= 0 && i < c->height && j >= 0 && j < c->width)
                value = c->input_kind == INPUT_NCHW ? x[m * plane + i * c->width + j]
                                                    : x[(i * c->width + j) * c->channels + m];
            const int64_t row = (o / lanes * taps + tap) * c->channels + m;
            sum = fmaf(value, weight[row * lanes + o % lanes], sum);
        }
    if (c->relu)
        return sum < 0 ? 0 : sum;
    if (!c->activation)
        return sum;
    const int64_t padded = (c->out_channels + lanes - 1) / lanes * lanes;
    const float *table = F(c->activation) + o, z = sum + table[0];
    const float above = table[padded] * z, under = table[2 * padded] * z;
    return (z > 0 ? above : under) + table[3 * padded];
}

static void draw_floats(FloatCall *c)
{
    *c = (FloatCall){.input_kind = draw(INPUT_NHWC, INPUT_NCHW), .batch = draw(1, 3), .channels = draw(1, 20),
                     .height = draw(1, 12), .width = draw(1, 14), .out_channels = draw(1, 80),
                     .kernel_height = draw(1, 4), .kernel_width = draw(1, 4), .stride_height = draw(1, 3),
                     .stride_width = draw(1, 3), .pad_top = draw(0, 2), .pad_left = draw(0, 2),
                     .relu = draw(0, 1), .pool = draw(0, 3), .pool_stride = draw(1, 3), .threads = draw(1, 3)};
    c->kernel_height = c->kernel_height > c->height + 2 * c->pad_top ? 1 : c->kernel_height;
    c->kernel_width = c->kernel_width > c->width + 2 * c->pad_left ? 1 : c->kernel_width;
    c->out_height = (c->height + 2 * c->pad_top - c->kernel_height) / c->stride_height + 1;
    c->out_width = (c->width + 2 * c->pad_left - c->kernel_width) / c->stride_width + 1;
    if (c->pool > c->out_height || c->pool > c->out_width)
        c->pool = 0;
    c->pool_pad = c->pool ? draw(0, c->pool / 2) : 0;
    c->pooled_height = (c->out_height + 2 * c->pool_pad - c->pool) / c->pool_stride + 1;
    c->pooled_width = (c->out_width + 2 * c->pool_pad - c->pool) / c->pool_stride + 1;
}

static int check_floats(const Variant *v)
{
    FloatCall c;
    draw_floats(&c);
    if (!v->float_lanes)
        return floats(v, &c) == NULL;
    const int64_t lanes = v->float_lanes, n = c.out_channels, padded = (n + lanes - 1) / lanes * lanes;
    const int64_t size = c.channels * c.height * c.width, pool = c.pool ? c.pool : 1;
    const int64_t high = c.pool ? c.pooled_height : c.out_height, wide = c.pool ? c.pooled_width : c.out_width;
    const int64_t step = c.pool ? c.pool_stride : 1, outputs = c.batch * high * wide * n;
    float *x = reals(c.batch * size), *out = buffer(outputs * 4);
    float *weight = reals(padded * c.kernel_height * c.kernel_width * c.channels);
    c.input = (int64_t)(intptr_t)x;
    c.weight = (int64_t)(intptr_t)weight;
    c.bias = (int64_t)(intptr_t)reals(padded);
    c.activation = c.relu || draw(0, 1) ? 0 : (int64_t)(intptr_t)reals(4 * padded);
    c.result = (int64_t)(intptr_t)out;
    const char *wrong = floats(v, &c);
    int bad = wrong != NULL;
    for (int64_t i = 0; i < outputs && !bad; i++) {
        const int64_t o = i % n, column = i / n % wide, y = i / n / wide % high, image = i / n / wide / high;
        float best = -INFINITY;
        for (int64_t tap = 0; tap < pool * pool; tap++) {
            const int64_t row = y * step - c.pool_pad + tap / pool, at = column * step - c.pool_pad + tap % pool;
            if (row >= 0 && row < c.out_height && at >= 0 && at < c.out_width)
                best = fmaxf(best, solve_float(&c, x + image * size, weight, lanes, row, at, o));
        }
        bad = out[i] != best;
    }
    if (bad)
        printf("%s floats: %s\n", v->name, wrong ? wrong : "differ");
    return bad;
}

int main(int argc, char **argv)
{
    const Variant *variants[MAX_VARIANTS];
    const int count = available_variants(variants), cases = argc > 1 ? atoi(argv[1]) : 200;
    int failures = 0;
    state = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1) * 0x9E3779B97F4A7C15u | 1;
    for (int i = 0; i < cases; i++) { /* memory is left to the end of the process */
        Case k = {0};
        draw_case(&k);
        for (int v = 0; v < count; v++)
            if (compare(&k, variants[v]) || check_rows(variants[v]) || check_planes(variants[v]) ||
                check_floats(variants[v]))
                failures++;
        if (failures > 9)
            break;
    }
    printf("%d cases of", cases);
    for (int v = 0; v < count; v++)
        printf(" %s", variants[v]->name);
    printf(": %d failures\n", failures);
    return failures != 0;
}
