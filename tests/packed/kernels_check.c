/* The kernels against loops one can read, without Python: for sanitizers, and for processors that are emulated.
 *
 *     cc -fsanitize=address,undefined kernels_check.c <kernels but module.c> && ./a.out [cases] [seed]
 *
 * Every array has its exact size in memory of its own, so that a sanitizer sees one word too many. Shapes are drawn
 * at random: channels up to 1030, kernels 1..7, strides, dilations, groups, paddings of all values, batch 1..5. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

static uint64_t state = 1;

static uint32_t draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static int64_t between(int64_t first, int64_t last)
{
    return first + (int64_t)(draw() % (uint64_t)(last - first + 1));
}

static float real(void)
{
    return draw() % 11 == 0 ? 0.0f : (float)((int)(draw() % 2001) - 1000) / 256;
}

static float *reals(int64_t n)
{
    float *made = malloc((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        made[i] = real();
    return made;
}

typedef struct {
    ConvCall call;
    float *x, *w, *thresholds, *scale, *shift, *residual, *activation, *next;
} Case;

static Case random_case(void)
{
    Case one = {{0}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    ConvCall *c = &one.call;
    const int large = draw() % 6 == 0, grouped = draw() % 4 == 0;
    do {
        c->groups = grouped ? between(2, 9) : 1;
        c->channels = c->groups * between(1, large ? 1030 / c->groups : 40);
        c->out_channels = c->groups * between(1, grouped ? 30 : 140);
        c->kernel_height = between(1, large ? 3 : 7);
        c->kernel_width = between(1, large ? 3 : 7);
        c->stride_height = between(1, 3);
        c->stride_width = between(1, 3);
        c->dilation_height = between(1, 2);
        c->dilation_width = between(1, 2);
        c->pad_top = between(0, 3);
        c->pad_bottom = between(0, 3);
        c->pad_left = between(0, 3);
        c->pad_right = between(0, 3);
        c->height = between(1, large ? 5 : 11);
        c->width = between(1, large ? 5 : 11);
        c->out_height = c->height + c->pad_top + c->pad_bottom - (c->kernel_height - 1) * c->dilation_height - 1;
        c->out_width = c->width + c->pad_left + c->pad_right - (c->kernel_width - 1) * c->dilation_width - 1;
    } while (c->out_height < 0 || c->out_width < 0);
    c->out_height = c->out_height / c->stride_height + 1;
    c->out_width = c->out_width / c->stride_width + 1;
    c->batch = between(1, 5);
    c->pad_value = between(-1, 1);
    c->planes = 1;
    c->threads = between(1, 3);
    c->input_kind = draw() % 2 ? INPUT_NHWC : INPUT_NCHW;
    const int64_t o = c->out_channels, outputs = c->batch * c->out_height * c->out_width * o;
    one.x = reals(c->batch * c->channels * c->height * c->width);
    one.w = reals(o * (c->channels / c->groups) * c->kernel_height * c->kernel_width);
    one.thresholds = reals(c->channels);
    one.scale = reals(o);
    one.shift = reals(o);
    one.residual = reals(outputs);
    one.activation = reals(4 * o);
    one.next = reals(o);
    return one;
}

static void release(Case *one)
{
    float *all[] = {one->x,     one->w,        one->thresholds, one->scale,
                    one->shift, one->residual, one->activation, one->next};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static int sign_at(const Case *one, int64_t n, int64_t ch, int64_t y, int64_t x)
{
    const ConvCall *c = &one->call;
    if (y < 0 || y >= c->height || x < 0 || x >= c->width)
        return (int)c->pad_value;
    const float v = c->input_kind == INPUT_NHWC ? one->x[((n * c->height + y) * c->width + x) * c->channels + ch]
                                                : one->x[((n * c->channels + ch) * c->height + y) * c->width + x];
    return v < one->thresholds[ch] ? -1 : 1;
}

static int32_t dot_at(const Case *one, int64_t n, int64_t o, int64_t y, int64_t x)
{
    const ConvCall *c = &one->call;
    const int64_t depth = c->channels / c->groups, first = o / (c->out_channels / c->groups) * depth;
    int32_t dot = 0;
    for (int64_t k = 0; k < depth; k++)
        for (int64_t i = 0; i < c->kernel_height; i++)
            for (int64_t j = 0; j < c->kernel_width; j++) {
                const float w = one->w[((o * depth + k) * c->kernel_height + i) * c->kernel_width + j];
                dot += (w < 0 ? -1 : 1) * sign_at(one, n, first + k,
                                                  y * c->stride_height - c->pad_top + i * c->dilation_height,
                                                  x * c->stride_width - c->pad_left + j * c->dilation_width);
            }
    return dot;
}

/* ---------------------------------------------------------------- weights, see layout.py */

typedef struct {
    uint32_t *data;
    int32_t *starts, *corner_sums;
} Laid;

static Laid lay_out(const Variant *v, Case *one)
{
    ConvCall *c = &one->call;
    const int64_t depth = c->channels / c->groups, per_group = c->out_channels / c->groups;
    const int64_t taps = c->kernel_height * c->kernel_width, total = (c->channels + 31) / 32;
    c->masked = c->groups > 1;
    const int64_t lanes = c->masked ? v->masked_lanes : v->lanes;
    const int64_t blocks = (c->out_channels + lanes - 1) / lanes, padded = blocks * lanes;
    Laid laid = {NULL, calloc((size_t)blocks, 4), NULL};
    c->span = total;
    const int64_t words = taps * c->span * padded * (c->masked ? 2 : 1);
    laid.data = aligned_alloc(64, (size_t)((words * 4 + 63) / 64 * 64));
    memset(laid.data, 0, (size_t)words * 4);
    laid.corner_sums = calloc((size_t)((c->kernel_height + 1) * (c->kernel_width + 1) * padded), 4);
    if (!c->masked) {
        FiltersCall filters = {c->out_channels, c->channels, c->kernel_height, c->kernel_width, v->lanes, padded,
                               c->threads, one->w, NULL, laid.data, laid.corner_sums, 0, NULL};
        const char *wrong = run_filters(v, &filters);
        if (wrong)
            printf("filters: %s\n", wrong);
    } else {
        for (int64_t o = 0; o < c->out_channels; o++) {
            const int64_t first = o / per_group * depth;
            for (int64_t t = 0; t < taps; t++)
                for (int64_t k = 0; k < depth; k++) {
                    const int64_t word = t * c->span + (first + k) / 32;
                    uint32_t *at = laid.data + ((o / lanes * taps * c->span + word) * 2) * lanes + o % lanes;
                    at[lanes] |= (uint32_t)1 << (first + k) % 32;
                    at[0] |= (uint32_t)(one->w[(o * depth + k) * taps + t] < 0) << (first + k) % 32;
                }
            for (int64_t i = 1; i <= c->kernel_height; i++) {
                int32_t row = 0;
                for (int64_t j = 1; j <= c->kernel_width; j++) {
                    for (int64_t k = 0; k < depth; k++)
                        row += one->w[(o * depth + k) * taps + (i - 1) * c->kernel_width + j - 1] < 0 ? -1 : 1;
                    const int64_t columns = c->kernel_width + 1;
                    laid.corner_sums[(i * columns + j) * padded + o] =
                        row + laid.corner_sums[((i - 1) * columns + j) * padded + o];
                }
            }
        }
    }
    c->weight = (int64_t)(intptr_t)laid.data;
    c->starts = (int64_t)(intptr_t)laid.starts;
    c->corner_sums = (int64_t)(intptr_t)laid.corner_sums;
    return laid;
}

static int differs(const char *what, const Variant *v, const Case *one, int64_t at)
{
    const ConvCall *c = &one->call;
    printf("%s %s at %ld: C %ld O %ld groups %ld kernel %ldx%ld image %ldx%ld pad value %ld batch %ld\n", v->name, what,
           (long)at, (long)c->channels, (long)c->out_channels, (long)c->groups, (long)c->kernel_height,
           (long)c->kernel_width, (long)c->height, (long)c->width, (long)c->pad_value, (long)c->batch);
    return 1;
}

static int check_case(const Variant *v, Case *one)
{
    ConvCall *c = &one->call;
    const int64_t o = c->out_channels, pixels = c->batch * c->out_height * c->out_width;
    const int64_t words = (o + 31) / 32;
    int32_t *dots = malloc((size_t)(pixels * o) * 4);
    float *result = malloc((size_t)(pixels * o) * 4);
    uint32_t *bits = malloc((size_t)(pixels * words) * 4);
    Laid laid = lay_out(v, one);
    c->input = (int64_t)(intptr_t)one->x;
    c->thresholds = (int64_t)(intptr_t)one->thresholds;
    c->result = c->scale = c->shift = c->residual = c->activation = c->next_threshold = c->bits = 0;
    c->dots = (int64_t)(intptr_t)dots;
    const char *wrong = convolve(v, c);
    c->dots = 0;
    c->result = (int64_t)(intptr_t)result;
    c->scale = (int64_t)(intptr_t)one->scale;
    c->shift = (int64_t)(intptr_t)one->shift;
    const uint32_t form = draw();
    c->residual = form & 1 ? (int64_t)(intptr_t)one->residual : 0;
    c->activation = form & 2 ? (int64_t)(intptr_t)one->activation : 0;
    c->activation_first = form & 4 ? 1 : 0;
    c->next_threshold = form & 8 ? (int64_t)(intptr_t)one->next : 0;
    c->bits = form & 8 ? (int64_t)(intptr_t)bits : 0;
    if (!wrong)
        wrong = convolve(v, c);
    int bad = wrong != NULL;
    if (wrong)
        printf("%s: %s\n", v->name, wrong);
    for (int64_t i = 0; i < pixels * o && !bad; i++) {
        const int64_t filter = i % o, pixel = i / o, n = pixel / (c->out_height * c->out_width);
        const int64_t at = pixel % (c->out_height * c->out_width);
        const int32_t dot = dot_at(one, n, filter, at / c->out_width, at % c->out_width);
        float y = one->scale[filter] * (float)dot;
        y = y + one->shift[filter];
        for (int step = 0; step < 2; step++) {
            if (c->activation && step == !c->activation_first) {
                const float *table = one->activation + filter, z = y + table[0];
                const float slope = z > 0 ? table[o] : table[2 * o], scaled = slope * z;
                y = scaled + table[3 * o];
            }
            if (!step && c->residual)
                y = y + one->residual[i];
        }
        if (dots[i] != dot)
            bad = differs("dot", v, one, i);
        else if (result[i] != y)
            bad = differs("float", v, one, i);
        else if (c->bits && (bits[pixel * words + filter / 32] >> filter % 32 & 1) != (y < one->next[filter]))
            bad = differs("bit", v, one, i);
    }
    free(dots);
    free(result);
    free(bits);
    free(laid.data);
    free(laid.starts);
    free(laid.corner_sums);
    return bad;
}

/* ---------------------------------------------------------------- elementwise */

static int check_rows(const Variant *v)
{
    const int64_t rows = between(1, 40), length = between(1, 700), short_of = between(0, length - 1);
    const int64_t total = rows * length - short_of;
    float *x = reals(total), *g = reals(total), *out = malloc((size_t)total * 4), numbers[3] = {0.25f, 1.5f, -0.5f};
    double *sums = malloc((size_t)rows * ROW_SUMS * sizeof(double));
    int bad = 0;
    for (int op = ROWS_SPLIT; op < ROWS_PLANES; op++) {
        RowsCall call = {op, (int)(draw() % 3), rows, length, total, 1, between(1, 3), x, g, out,
                         numbers, numbers + 1, NULL, numbers + 2, numbers + 1, NULL, sums, 0.7, 2.0};
        if (op == ROWS_ESTIMATE_FILTER && short_of)
            continue;
        const char *wrong = run_rows(v, &call);
        for (int64_t i = 0; i < total && !bad && !wrong; i++) {
            const float z = x[i] - 0.25f;
            if (op == ROWS_SPLIT)
                bad = out[i] != (x[i] < 0.25f ? -0.5f : 1.5f);
            else if (op == ROWS_BEND)
                bad = out[i] != z * (z > 0 ? 1.5f : -0.5f);
            else if (op == ROWS_ESTIMATE && call.kind == ESTIMATE_DECAY) {
                const double t = tanh(0.7 * (double)z / 1.5);
                bad = fabs((double)out[i] - (double)g[i] * 0.7 * 2 * (1 - t * t)) > 1e-5;
            }
        }
        if (wrong || bad) {
            printf("%s rows, op %d: %s\n", v->name, op, wrong ? wrong : "differs");
            bad = 1;
        }
    }
    free(x);
    free(g);
    free(out);
    free(sums);
    return bad;
}

static int check_planes(const Variant *v)
{
    const int64_t channels = between(1, 70), pixels = between(1, 90), images = between(1, 3);
    const int64_t n = channels * pixels * images;
    float *x = reals(n), *out = malloc((size_t)n * 4);
    RowsCall call = {ROWS_PLANES, 0, images * ((channels + 15) / 16), pixels, n, channels, 1, x, NULL, out,
                     NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0};
    int bad = run_rows(v, &call) != NULL;
    for (int64_t i = 0; i < n && !bad; i++) {
        const int64_t image = i / (channels * pixels), c = i / pixels % channels, p = i % pixels;
        bad = out[i] != x[(image * pixels + p) * channels + c];
    }
    if (bad)
        printf("%s planes differ\n", v->name);
    free(x);
    free(out);
    return bad;
}

int main(int argc, char **argv)
{
    const Variant *variants[MAX_VARIANTS];
    const int count = available_variants(variants), cases = argc > 1 ? atoi(argv[1]) : 200;
    int bad = 0;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (int i = 0; i < cases && !bad; i++) {
        Case one = random_case();
        for (int k = 0; k < count && !bad; k++)
            bad = check_case(variants[k], &one) || check_rows(variants[k]) || check_planes(variants[k]);
        release(&one);
    }
    for (int k = 0; k < count; k++)
        printf("%s%s", variants[k]->name, k + 1 < count ? ", " : "");
    printf(": %d cases, %s\n", cases, bad ? "DIFFERENT" : "all equal");
    return bad;
}
