/* The door: whether the numbers of a call are possible together, and each buffer as long as they need.
 *
 * Nobody behind it looks again. Sizes lie below 2^31, and what is made of them saturates: a product that does not fit
 * into 64 bits is larger than any buffer. Parts of a call are copied before results are written; what is read while
 * they are, is no part of their memory, or the very element that is written next. */
#include "kernels.h"

#include <string.h>

const char *const out_of_memory = "out of memory";
static const char *const too_much_padding = "the image's margin, which is padding alone, takes more than 1 GiB";

static int64_t times(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

static int64_t times4(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return times(times(a, b), times(c, d));
}

static int within(int64_t value, int64_t low, int64_t high)
{
    return low <= value && value <= high;
}

static int is_size(int64_t value)
{
    return within(value, 1, INT32_MAX);
}

static int is_padding(int64_t value)
{
    return within(value, 0, INT32_MAX);
}

static int64_t words_of(int64_t bits)
{
    return (bits + 31) / 32;
}

/* Output positions of one axis; 0 where the window does not fit. */
static int64_t positions(int64_t length, int64_t kernel, int64_t dilation, int64_t stride)
{
    const int64_t reach = (kernel - 1) * dilation + 1;
    return length < reach ? 0 : (length - reach) / stride + 1;
}

/* Not so long as it must be, or where no number of four bytes can lie. */
static int is_short(int64_t address, int64_t bytes, int64_t needed)
{
    return bytes < needed || address % 4;
}

static int shares(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes)
{
    return a && b && a < b + b_bytes && b < a + a_bytes;
}

/* What is not given may be missing. */
#define NEEDS(call, name, bytes)                                                                              \
    if ((call)->name && is_short((int64_t)(intptr_t)(call)->name, (call)->name##_bytes, bytes))               \
        return "the buffer of '" #name "' is shorter than the sizes need, or begins between two numbers";

static const char *check_image(const ConvCall *call)
{
    if (!within(call->planes, 1, MAX_PLANES))
        return "between 1 and 8 bit planes are possible";
    if (!within(call->input_kind, INPUT_NHWC, INPUT_WORDS) || (call->input_kind == INPUT_WORDS && call->planes > 1))
        return "a packed image has one bit plane";
    if (!is_padding(call->batch) || !is_size(call->height) || !is_size(call->width) || !is_size(call->channels))
        return "sizes of an image must be positive and below 2^31";
    return NULL;
}

static const char *check_window(const ConvCall *call)
{
    if (!is_size(call->out_channels) || !is_size(call->groups) || call->channels % call->groups ||
        call->out_channels % call->groups)
        return "channels do not divide into the groups";
    if (!is_size(call->stride_height) || !is_size(call->stride_width) || !is_size(call->dilation_height) ||
        !is_size(call->dilation_width))
        return "stride and dilation must be positive and below 2^31";
    if (!is_padding(call->pad_top) || !is_padding(call->pad_bottom) || !is_padding(call->pad_left) ||
        !is_padding(call->pad_right) || !within(call->pad_value, -1, 1))
        return "padding must not be negative and below 2^31, its value -1, 0 or 1";
    if (!within(call->kernel_height, 1, MAX_KERNEL) || !within(call->kernel_width, 1, MAX_KERNEL) ||
        call->channels / call->groups > INT32_MAX / 2 / (call->kernel_height * call->kernel_width))
        return "a kernel is at most 4096 high and wide, a filter has less than 2^30 weights";
    const int64_t high = call->height + call->pad_top + call->pad_bottom;
    const int64_t wide = call->width + call->pad_left + call->pad_right;
    if (call->out_height < 1 || call->out_width < 1 ||
        call->out_height != positions(high, call->kernel_height, call->dilation_height, call->stride_height) ||
        call->out_width != positions(wide, call->kernel_width, call->dilation_width, call->stride_width))
        return "the output size does not fit the input size";
    const int64_t reach = (call->kernel_height - 1) * call->dilation_height + 1;
    if (times4(wide, reach, call->channels, 1) > INT32_MAX)
        return "a row of the padded image, or as many as a window is high, has 2^31 numbers or more";
    const int64_t bytes = 4 * call->planes * words_of(call->channels); /* of a packed pixel */
    if (times4(high, wide, bytes, 1) - times4(call->height, call->width, bytes, 1) > MOST_SCRATCH)
        return too_much_padding;
    return NULL;
}

/* Which parts go with which. */
static const char *check_parts(const ConvCall *call)
{
    if (!call->input || !call->weight || !call->starts || !call->corner_sums)
        return "an input or a weight is missing";
    if (!call->dots && !call->result && !call->bits)
        return "there is nothing to compute";
    if (!call->result != !call->scale || (call->scale && !call->shift) || (call->border && !call->shift))
        return "a float result needs scale and shift, and these a float result";
    if ((call->limit && (!call->flip || call->next_threshold)) || (call->next_threshold && !call->result) ||
        !call->bits != (!call->limit && !call->next_threshold))
        return "bits need limit and flip, or next_threshold and a float result";
    if (call->input_kind == INPUT_WORDS && call->thresholds)
        return "a packed image has its thresholds behind it";
    return NULL;
}

static const char *check_weight(const Variant *variant, const ConvCall *call)
{
    const int64_t lanes = call->masked ? variant->masked_lanes : variant->lanes, words = words_of(call->channels);
    const int64_t blocks = (call->out_channels + lanes - 1) / lanes, taps = call->kernel_height * call->kernel_width;
    const int32_t *starts = (const int32_t *)(intptr_t)call->starts;
    if (!within(call->span, 1, words) || !within(call->masked, 0, 1))
        return "a block reads more words than a pixel has";
    const int64_t block_words = times4(taps, call->span, lanes, 1 + call->masked);
    if (block_words > INT32_MAX)
        return "a block of filters has 2^31 words or more";
    NEEDS(call, weight, times4(blocks, block_words, 4, 1))
    NEEDS(call, starts, 4 * blocks)
    NEEDS(call, corner_sums, times4((call->kernel_height + 1) * (call->kernel_width + 1), blocks, lanes, 4))
    for (int64_t i = 0; i < blocks; i++)
        if (!within(starts[i], 0, words - call->span))
            return "a block reads words beyond its pixel";
    return NULL;
}

static const char *check_buffers(const ConvCall *call)
{
    const int64_t n = call->out_channels, pixels = times4(call->batch, call->out_height, call->out_width, 1);
    const int64_t inputs = times4(call->batch, call->height, call->width, 4), results = times4(pixels, n, 4, 1);
    NEEDS(call, input,
          times(inputs, call->input_kind == INPUT_WORDS ? words_of(call->channels) : call->channels))
    NEEDS(call, thresholds, times4(call->planes, call->channels, 4, 1))
    NEEDS(call, dots, results)
    NEEDS(call, result, results)
    NEEDS(call, residual, results)
    NEEDS(call, bits, times4(pixels, words_of(n), 4, 1))
    NEEDS(call, scale, times4(call->planes, n, 4, 1))
    NEEDS(call, shift, 4 * n)
    NEEDS(call, window_scale, 4 * n)
    NEEDS(call, border, 8 * n)
    NEEDS(call, activation, 16 * n)
    NEEDS(call, limit, 4 * n)
    NEEDS(call, flip, 4 * words_of(n))
    NEEDS(call, next_threshold, 4 * n)
    /* An image is packed before its results are written; packed ones are read in the meantime. */
    const int follows = call->input_kind == INPUT_NHWC && call->input == call->result &&
                        times(inputs, call->channels) == results;
    const int64_t bits_bytes = times4(pixels, words_of(n), 4, 1);
    const int64_t read = times(inputs, call->input_kind == INPUT_WORDS ? words_of(call->channels) : call->channels);
    if (shares(call->residual, results, call->result, results) && call->residual != call->result)
        return "the result shares a part of the residual's memory";
    if ((shares(call->result, results, call->input, read) && !follows) ||
        shares(call->dots, results, call->input, read) || shares(call->bits, bits_bytes, call->input, read) ||
        shares(call->bits, bits_bytes, call->residual, results) ||
        shares(call->bits, bits_bytes, call->result, results))
        return "a result shares memory with what is read";
    return NULL;
}

/* A packed pixel's bits beyond its channels would be counted as channels. */
static const char *check_filling(const ConvCall *call)
{
    const int64_t words = words_of(call->channels), pixels = call->batch * call->height * call->width;
    if (call->input_kind != INPUT_WORDS || call->channels % 32 == 0)
        return NULL;
    const uint32_t *last = (const uint32_t *)(intptr_t)call->input + words - 1;
    uint32_t set = 0;
    for (int64_t i = 0; i < pixels; i++)
        set |= last[i * words];
    return set >> call->channels % 32 ? "a bit of a packed image beyond its channels is set" : NULL;
}

const char *refuse_conv(const Variant *variant, const ConvCall *call)
{
    const char *wrong = check_image(call);
    if (!wrong)
        wrong = check_window(call);
    if (wrong || !call->batch)
        return wrong;
    wrong = check_parts(call);
    if (!wrong)
        wrong = check_weight(variant, call);
    if (!wrong)
        wrong = check_buffers(call);
    return wrong ? wrong : check_filling(call);
}

const char *refuse_pack(const ConvCall *call)
{
    const char *wrong = check_image(call);
    if (wrong || !call->batch)
        return wrong;
    if (!call->input || !call->bits || call->planes != 1 || call->input_kind == INPUT_WORDS)
        return "one plane of a float image can be packed";
    const int64_t pixels = times4(call->batch, call->height, call->width, 4);
    NEEDS(call, input, times(pixels, call->channels))
    NEEDS(call, thresholds, 4 * call->channels)
    NEEDS(call, bits, times(pixels, words_of(call->channels)))
    if (shares(call->input, call->input_bytes, call->bits, call->bits_bytes))
        return "the words share memory with the image";
    return NULL;
}

/* Elements of a row's arrays: whole rows but for the last, or images of whole planes. */
static int64_t row_total(const RowsCall *call)
{
    if (call->op != ROWS_PLANES)
        return times(call->rows, call->length);
    const int64_t blocks = (call->period + 15) / 16;
    return call->rows % blocks ? 0 : times4(call->rows / blocks, call->length, call->period, 1);
}

static const char *check_row_sizes(const RowsCall *call)
{
    const int64_t total = row_total(call);
    if (!within(call->op, ROWS_SPLIT, ROWS_PLANES) || !within(call->kind, 0, ESTIMATE_DECAY) ||
        !within(call->half, 0, 1) || !within(call->across, 0, 1))
        return "there is no such work";
    if (!is_size(call->rows) || call->length < 1 || call->period < 1 || call->total < 1)
        return "sizes must be positive";
    if (total == INT64_MAX || call->total > total || call->total <= total - call->length ||
        (call->op == ROWS_PLANES && call->total != total))
        return "the rows do not make up the total";
    const int is_bent = call->op == ROWS_SPLIT || call->op == ROWS_BEND || call->op == ROWS_UNBEND;
    if ((call->half || call->across) && !is_bent && call->op != ROWS_ESTIMATE)
        return "this is done to rows of float32 alone";
    if (call->across && (call->length % call->period || call->total % call->period))
        return "the rows are not whole pixels";
    return NULL;
}

const char *refuse_rows(const RowsCall *call)
{
    const char *wrong = check_row_sizes(call);
    if (wrong)
        return wrong;
    if (!call->x || (!call->out && call->op != ROWS_MAGNITUDE && call->op != ROWS_DEVIATION) ||
        (!call->g && (call->op == ROWS_ESTIMATE || call->op == ROWS_ESTIMATE_FILTER || call->op == ROWS_UNBEND)) ||
        (!call->sums && (call->op == ROWS_MAGNITUDE || call->op == ROWS_DEVIATION || call->op == ROWS_UNBEND)))
        return "an array is missing";
    const int64_t size = call->half ? 2 : 4, bytes = times(call->total, size), numbers = times(call->period, 4);
    const char *const begins[] = {call->x, call->g, call->out};
    const int64_t lengths[] = {call->x_bytes, call->g_bytes, call->out_bytes};
    for (int i = 0; i < 3; i++)
        if (begins[i] && (lengths[i] < bytes || (intptr_t)begins[i] % size))
            return "an array is shorter than the rows, or begins between two numbers";
    NEEDS(call, centre, numbers)
    NEEDS(call, radius, numbers)
    NEEDS(call, divisor, numbers)
    NEEDS(call, low, numbers)
    NEEDS(call, high, numbers)
    NEEDS(call, post, numbers)
    NEEDS(call, sums, times4(call->rows, call->across ? call->period : 1, ROW_SUMS, sizeof(double)))
    const int64_t out = (int64_t)(intptr_t)call->out, x = (int64_t)(intptr_t)call->x, g = (int64_t)(intptr_t)call->g;
    if ((shares(out, bytes, x, bytes) && (out != x || call->op == ROWS_PLANES || call->op == ROWS_ESTIMATE_FILTER)) ||
        (call->g && shares(out, bytes, g, bytes) && out != g))
        return "the result shares a part of the memory that is read";
    return NULL;
}

const char *refuse_filters(const Variant *variant, const FiltersCall *call)
{
    if (!is_size(call->filters) || !is_size(call->channels) || !within(call->kernel_height, 1, MAX_KERNEL) ||
        !within(call->kernel_width, 1, MAX_KERNEL) || call->lanes != variant->lanes ||
        !within(call->padded, call->filters, INT32_MAX) || call->padded % call->lanes)
        return "sizes do not fit";
    const int64_t taps = call->kernel_height * call->kernel_width;
    if (call->channels > INT32_MAX / 2 / taps)
        return "a filter has less than 2^30 weights";
    if (!call->weight || !call->data || !call->corner_sums)
        return "an array is missing";
    NEEDS(call, weight, times4(call->filters, call->channels, taps, 4))
    NEEDS(call, threshold, times(call->filters, 4))
    NEEDS(call, data, times4(call->padded, taps, words_of(call->channels), 4))
    NEEDS(call, corner_sums, times4(call->kernel_height + 1, call->kernel_width + 1, call->padded, 4))
    return NULL;
}

static const char *check_pool(const FloatCall *call)
{
    if (!call->pool)
        return NULL;
    if (!is_size(call->pool) || !is_size(call->pool_stride) || !is_padding(call->pool_pad) ||
        call->pool_pad > call->pool / 2)
        return "a pool's padding is at most half of its side";
    const int64_t high = call->out_height + 2 * call->pool_pad, wide = call->out_width + 2 * call->pool_pad;
    if (call->pooled_height < 1 || call->pooled_width < 1 ||
        call->pooled_height != positions(high, call->pool, 1, call->pool_stride) ||
        call->pooled_width != positions(wide, call->pool, 1, call->pool_stride))
        return "a window of the pool lies outside the image";
    return NULL;
}

static const char *check_float_sizes(const FloatCall *call)
{
    if (!is_padding(call->batch) || !is_size(call->channels) || !is_size(call->height) || !is_size(call->width) ||
        !is_size(call->out_channels) || !is_size(call->kernel_height) || !is_size(call->kernel_width) ||
        !is_size(call->stride_height) || !is_size(call->stride_width) || !is_padding(call->pad_top) ||
        !is_padding(call->pad_left) || !within(call->input_kind, INPUT_NHWC, INPUT_NCHW))
        return "sizes must be positive, padding not negative, and both below 2^31";
    const int64_t high = call->height + 2 * call->pad_top, wide = call->width + 2 * call->pad_left;
    if (call->out_height < 1 || call->out_width < 1 ||
        call->out_height != positions(high, call->kernel_height, 1, call->stride_height) ||
        call->out_width != positions(wide, call->kernel_width, 1, call->stride_width))
        return "the output size does not fit the input size";
    const int64_t inside = times4(call->height, call->width, call->channels, 4);
    if (times4(high, wide, call->channels, 4) - inside > MOST_SCRATCH)
        return too_much_padding;
    return check_pool(call);
}

const char *refuse_floats(const Variant *variant, const FloatCall *call)
{
    if (!variant->float_lanes)
        return "this variant has no float convolution";
    const char *wrong = check_float_sizes(call);
    if (wrong || !call->batch)
        return wrong;
    const int64_t n = call->out_channels, lanes = variant->float_lanes, padded = (n + lanes - 1) / lanes * lanes;
    const int64_t high = call->pool ? call->pooled_height : call->out_height;
    const int64_t wide = call->pool ? call->pooled_width : call->out_width;
    const int64_t image = times4(call->height, call->width, call->channels, 4);
    const int64_t result = times(times4(call->batch, high, wide, n), 4);
    if (!call->input || !call->weight || !call->bias || !call->result)
        return "an array is missing";
    NEEDS(call, input, times(call->batch, image))
    NEEDS(call, weight, times(times4(padded, call->kernel_height, call->kernel_width, call->channels), 4))
    NEEDS(call, bias, 4 * padded)
    NEEDS(call, activation, 16 * padded)
    NEEDS(call, result, result)
    if (shares(call->input, call->input_bytes, call->result, result))
        return "the result shares memory with the image";
    return NULL;
}
