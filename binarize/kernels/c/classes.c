/* Borders: output pixels whose windows have the same taps inside the image form a class, with its own constants.
 *
 * The packed image has a margin of words 0, that is of upper values. Where a window reaches into it, the outside
 * taps have added the sum of their weights; for a padding value p they should have added p times that:
 *
 *     dot += (p - 1) * sum of the outside weights
 *
 * and p times it where they are not read at all: of a 7x7 image a 3x3 kernel reads a fifth for nothing.
 *
 * Rows and columns are classified apart, and a class is a pair. 3x3 with padding 1 has three classes a side; the
 * middle pair is the whole window.
 *
 *     0 1 1 1 2
 *     3 4 4 4 5      sums over any rectangle of taps come from four corner sums
 *     3 4 4 4 5
 *     6 7 7 7 8 */
#include "plan.h"

#include <string.h>

static Taps taps_inside(int64_t start, int64_t length, int64_t kernel, int64_t dilation)
{
    Taps taps = {0, kernel};
    if (start < 0)
        taps.first = smaller(kernel, (-start + dilation - 1) / dilation);
    taps.last = start >= length ? 0 : smaller(kernel, (length - start + dilation - 1) / dilation);
    taps.last = larger(taps.first, taps.last);
    return taps;
}

/* Both ends of the range only fall from one output to the next, by `kernel` in all. */
int64_t most_classes(int64_t outputs, int64_t kernel)
{
    return smaller(outputs, 2 * kernel + 1);
}

/* For the same reason equal ranges are neighbours. */
int64_t classify(int64_t outputs, int64_t stride, int64_t pad, int64_t length, int64_t kernel, int64_t dilation,
                 int16_t *class_of, Taps *taps)
{
    int64_t classes = 0;
    for (int64_t i = 0; i < outputs; i++) {
        const Taps now = taps_inside(i * stride - pad, length, kernel, dilation);
        if (!classes || now.first != taps[classes - 1].first || now.last != taps[classes - 1].last)
            taps[classes++] = now;
        class_of[i] = (int16_t)(classes - 1);
    }
    return classes;
}

/* dot = base - (popcount << shift): of `size` weights with the sum `counted` in the popcount, and what the weights
 * outside have to be multiplied by beyond what is in it. */
static void fill_base(const ConvCall *call, int64_t padded, int32_t size, const int32_t *counted,
                      const int32_t *total, const int32_t *inside, int32_t factor, int32_t *base)
{
    for (int64_t o = 0; o < padded; o++)
        base[o] = (call->zero_one ? (size + counted[o]) / 2 : size) + factor * (total[o] - inside[o]);
}

/* dot < limit  <=>  popcount << shift > base - limit  <=>  popcount > floor((base - limit) / 2^shift) */
static void fill_pop_limit(const ConvCall *call, int64_t padded, int shift, const int32_t *base,
                           int32_t *pop_limit)
{
    const int32_t *limit = integers_at(call->limit);
    for (int64_t o = 0; o < padded; o++) {
        int64_t most = INT32_MAX; /* no count is larger: filling bits are 0 */
        if (o < call->out_channels)
            most = ((int64_t)base[o] - limit[o]) >> shift;
        pop_limit[o] = (int32_t)larger(INT32_MIN, smaller(INT32_MAX, most));
    }
}

/* E * Sw + F * n + B, of the sum and the number of the weights that count */
static void fill_constant(const ConvCall *call, int64_t padded, const int32_t *sum, int64_t count, float *constant)
{
    const float *shift = floats_at(call->shift), *border = floats_at(call->border);
    const int64_t n = call->out_channels;
    memset(constant, 0, (size_t)padded * 4);
    for (int64_t o = 0; o < n; o++)
        constant[o] = border ? (border[o] * (float)sum[o] + border[n + o] * (float)count) + shift[o] : shift[o];
}

void fill_classes(Plan *plan, const Taps *rows, int64_t row_classes, const Taps *columns, int64_t column_classes)
{
    const ConvCall *call = &plan->call;
    ConvJob *job = &plan->job;
    const int64_t padded = job->padded, wide = call->kernel_width + 1, classes = row_classes * column_classes;
    const int64_t taps = call->kernel_height * call->kernel_width, filter = call->channels / call->groups;
    const int32_t *sums = integers_at(call->corner_sums);
    const int32_t *total = sums + (taps + call->kernel_height + call->kernel_width) * padded;
    int32_t *inside = arena_take(&plan->arena, padded * 4);
    int32_t *bases = arena_take(&plan->arena, classes * padded * 4);
    int32_t *pop_limits = call->limit ? arena_take(&plan->arena, classes * padded * 4) : NULL;
    float *constants = call->shift ? arena_take(&plan->arena, classes * padded * 4) : NULL;
    for (int64_t r = 0; r < row_classes; r++)
        for (int64_t c = 0; c < column_classes; c++) {
            const int64_t height = rows[r].last - rows[r].first, width = columns[c].last - columns[c].first;
            const int32_t *below_right = sums + (rows[r].last * wide + columns[c].last) * padded;
            const int32_t *above_right = sums + (rows[r].first * wide + columns[c].last) * padded;
            const int32_t *below_left = sums + (rows[r].last * wide + columns[c].first) * padded;
            const int32_t *above_left = sums + (rows[r].first * wide + columns[c].first) * padded;
            const int64_t start = (r * column_classes + c) * padded;
            for (int64_t o = 0; o < padded; o++)
                inside[o] = below_right[o] - above_right[o] - below_left[o] + above_left[o];
            const int32_t pad = (int32_t)call->pad_value;
            if (plan->skips)
                fill_base(call, padded, (int32_t)(filter * height * width), inside, total, inside, pad, bases + start);
            else
                fill_base(call, padded, (int32_t)(filter * taps), total, total, inside, pad - 1, bases + start);
            if (pop_limits)
                fill_pop_limit(call, padded, job->pop_shift, bases + start, pop_limits + start);
            if (constants && call->pad_value == 0)
                fill_constant(call, padded, inside, filter * height * width, constants + start);
            else if (constants) /* taps on a border of 1 or -1 are inputs like the others */
                fill_constant(call, padded, total, filter * taps, constants + start);
        }
    job->base = bases;
    job->pop_limit = pop_limits;
    job->constant = constants;
    job->column_classes = column_classes;
}
