/* From a call to jobs: sizes, the tables that do not depend on the pixel, memory, and the split over threads.
 *
 * The packed image gets a margin of words 0, that is of upper values.  Where a window reaches into the margin, the
 * outside taps have added (sum of their weights) too much or, for another padding value p, p instead of 1 of it:
 *
 *     dot += (p - 1) * sum of the outside weights
 *
 * Output rows whose windows have the same taps inside the image form a class, and so do columns; a table has the
 * correction of each pair of classes.  3x3 with padding 1 has 3 classes a side, and the middle pair needs none. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

/* What a chunk of packed input may take, so that it stays in the second-level cache under every block of filters. */
enum { CHUNK_BYTES = 256 * 1024, CHUNKS_PER_THREAD = 8 };

typedef struct {
    char *memory, *free;
} Arena;

static int64_t aligned(int64_t bytes)
{
    return (bytes + 63) & ~(int64_t)63;
}

static void *take(Arena *arena, int64_t bytes)
{
    void *taken = arena->free;
    arena->free += aligned(bytes);
    return taken;
}

/* Adds a margin of one line at the end, because the start is aligned by hand. */
static int arena_open(Arena *arena, int64_t bytes)
{
    arena->memory = malloc((size_t)(bytes + 64));
    arena->free = (char *)(uintptr_t)aligned((int64_t)(uintptr_t)arena->memory);
    return arena->memory != NULL;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---------------------------------------------------------------- classes of rows and columns */

typedef struct {
    int64_t first, last; /* taps [first, last) lie inside the image */
} Taps;

static Taps taps_inside(int64_t start, int64_t length, int64_t kernel, int64_t dilation)
{
    Taps taps = {0, kernel};
    if (start < 0)
        taps.first = smaller(kernel, (-start + dilation - 1) / dilation);
    taps.last = start >= length ? 0 : smaller(kernel, (length - start + dilation - 1) / dilation);
    taps.last = larger(taps.first, taps.last);
    return taps;
}

/* Both ends of the range only fall from one output to the next, so equal ranges are neighbours, and there are at
 * most as many as both ends together have steps. */
static int64_t max_classes(int64_t outputs, int64_t kernel)
{
    return smaller(outputs, 2 * kernel + 1);
}

static int64_t classify(int64_t outputs, int64_t stride, int64_t pad, int64_t length, int64_t kernel,
                        int64_t dilation, int16_t *class_of, Taps *taps)
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

/* ---------------------------------------------------------------- one call */

typedef struct {
    ConvCall call;   /* a copy: 1x1 convolutions are reshaped into one long row */
    const Variant *variant;
    ConvJob job;
    WindowJob window;
    PackJob pack;
    int64_t pixel_words, row_words, image_words; /* of the packed image with its margin; image: one plane */
    int64_t input_bytes, units;
    int in_place;    /* the input is already packed and needs no margin */
    const float *thresholds;
    uint32_t *images;  /* one set of planes a worker */
    int32_t *windows;  /* one array a worker */
    int workers;
} Plan;

static const float *pointer_f(int64_t address)
{
    return (const float *)(intptr_t)address;
}

/* A row of filters copied into an array that has room for whole blocks. */
static float *padded_f(Arena *arena, int64_t address, int64_t rows, int64_t n, int64_t padded)
{
    if (!address)
        return NULL;
    float *to = take(arena, rows * padded * 4);
    memset(to, 0, (size_t)(rows * padded) * 4);
    for (int64_t i = 0; i < rows; i++)
        memcpy(to + i * padded, pointer_f(address) + i * n, (size_t)n * 4);
    return to;
}

static void use_one_row(ConvCall *call)
{
    const int64_t strides = call->stride_height * call->stride_width;
    const int64_t pads = call->pad_top + call->pad_bottom + call->pad_left + call->pad_right;
    if (call->kernel_height * call->kernel_width != 1 || strides != 1 || pads)
        return;
    call->width *= call->height;
    call->height = 1;
    if (call->input_kind != INPUT_NCHW) {
        call->width *= call->batch;
        call->batch = 1;
    }
    call->out_height = 1;
    call->out_width = call->width;
}

static const char *check(const ConvCall *call)
{
    const int64_t span_h = (call->kernel_height - 1) * call->dilation_height + 1;
    const int64_t span_w = (call->kernel_width - 1) * call->dilation_width + 1;
    const int64_t high = call->height + call->pad_top + call->pad_bottom;
    const int64_t wide = call->width + call->pad_left + call->pad_right;
    if (call->planes < 1 || call->planes > MAX_PLANES)
        return "between 1 and 8 bit planes are possible";
    if (call->batch < 0 || call->height < 1 || call->width < 1 || call->channels < 1 || call->out_channels < 1)
        return "sizes must be positive";
    if (call->groups < 1 || call->channels % call->groups || call->out_channels % call->groups)
        return "channels do not divide into the groups";
    if (call->kernel_height < 1 || call->kernel_width < 1 || call->stride_height < 1 || call->stride_width < 1 ||
        call->dilation_height < 1 || call->dilation_width < 1)
        return "kernel, stride and dilation must be positive";
    if (call->pad_top < 0 || call->pad_bottom < 0 || call->pad_left < 0 || call->pad_right < 0 ||
        call->pad_value < -1 || call->pad_value > 1)
        return "padding must not be negative, its value -1, 0 or 1";
    if (high < span_h || wide < span_w || call->out_height != (high - span_h) / call->stride_height + 1 ||
        call->out_width != (wide - span_w) / call->stride_width + 1)
        return "the output size does not fit the input size";
    if (call->span < 1 || call->span > (call->channels + 31) / 32)
        return "a block reads more words than a pixel has";
    if (call->kernel_height > 4096 || call->kernel_width > 4096 ||
        call->channels / call->groups > INT32_MAX / 2 / (call->kernel_height * call->kernel_width))
        return "a filter is too large";
    if (wide > INT32_MAX / span_h / call->channels)
        return "an image row is too large";
    return NULL;
}

/* Tables over classes: what a border adds to the dot product and to the constant of the affine. */
static void fill_classes(Plan *plan, Arena *arena, const Taps *rows, int64_t row_classes, const Taps *columns,
                         int64_t column_classes)
{
    const ConvCall *call = &plan->call;
    const int64_t n = call->out_channels, padded = plan->job.padded, wide = call->kernel_width + 1;
    const int64_t classes = row_classes * column_classes, filter = call->channels / call->groups;
    const int32_t *sums = (const int32_t *)(intptr_t)call->corner_sums;
    const int32_t *total = sums + (call->kernel_height * wide + call->kernel_width) * padded;
    const float *shift = pointer_f(call->shift), *border = pointer_f(call->border);
    int32_t *corrections = take(arena, classes * padded * 4), *inside = take(arena, padded * 4);
    float *constants = take(arena, classes * padded * 4);
    const int32_t **pointers = take(arena, classes * (int64_t)sizeof *pointers);
    const int32_t factor = (int32_t)call->pad_value - 1;
    memset(constants, 0, (size_t)(classes * padded) * 4);
    for (int64_t r = 0; r < row_classes; r++)
        for (int64_t c = 0; c < column_classes; c++) {
            const int64_t index = r * column_classes + c;
            const int64_t height = rows[r].last - rows[r].first, width = columns[c].last - columns[c].first;
            const int whole = height == call->kernel_height && width == call->kernel_width;
            const int32_t *a = sums + (rows[r].last * wide + columns[c].last) * padded;
            const int32_t *b = sums + (rows[r].first * wide + columns[c].last) * padded;
            const int32_t *d = sums + (rows[r].last * wide + columns[c].first) * padded;
            const int32_t *e = sums + (rows[r].first * wide + columns[c].first) * padded;
            int32_t *correction = corrections + index * padded;
            float *constant = constants + index * padded;
            for (int64_t o = 0; o < padded; o++)
                inside[o] = whole ? total[o] : a[o] - b[o] - d[o] + e[o];
            for (int64_t o = 0; o < padded; o++)
                correction[o] = factor * (total[o] - inside[o]);
            pointers[index] = whole || !factor ? NULL : correction;
            if (!shift)
                continue;
            if (!border) {
                memcpy(constant, shift, (size_t)n * 4);
                continue;
            }
            const int out = call->pad_value == 0; /* taps on a border of 0 are no inputs */
            const float count = (float)(filter * (out ? height * width : call->kernel_height * call->kernel_width));
            for (int64_t o = 0; o < n; o++) {
                const float sum = (float)(out ? inside[o] : total[o]);
                constant[o] = (border[o] * sum + border[n + o] * count) + shift[o];
            }
        }
    plan->job.correction = pointers;
    plan->job.constant = constants;
    plan->job.column_classes = column_classes;
}

static void fill_offsets(Plan *plan, int32_t *offsets)
{
    const ConvCall *call = &plan->call;
    for (int64_t i = 0; i < call->kernel_height; i++)
        for (int64_t j = 0; j < call->kernel_width; j++)
            for (int64_t k = 0; k < call->span; k++)
                *offsets++ = (int32_t)(i * call->dilation_height * plan->row_words +
                                       j * call->dilation_width * plan->pixel_words + k);
}

/* Everything that is the same for all images of the call. */
static void fill_job(Plan *plan, Arena *arena)
{
    const ConvCall *call = &plan->call;
    ConvJob *job = &plan->job;
    const int64_t n = call->out_channels, padded = job->padded;
    const int64_t wide = call->kernel_width + 1, filter = call->channels / call->groups;
    const int32_t *sums = (const int32_t *)(intptr_t)call->corner_sums;
    const int32_t *total = sums + (call->kernel_height * wide + call->kernel_width) * padded;
    const int64_t size = filter * call->kernel_height * call->kernel_width;

    int32_t *offsets = take(arena, job->words * 4), *base = take(arena, padded * 4);
    fill_offsets(plan, offsets);
    for (int64_t o = 0; o < padded; o++)
        base[o] = call->zero_one ? ((int32_t)size + total[o]) / 2 : (int32_t)size;

    int16_t *row_class = take(arena, call->out_height * 2), *column_class = take(arena, call->out_width * 2);
    Taps *rows = take(arena, max_classes(call->out_height, call->kernel_height) * (int64_t)sizeof *rows);
    Taps *columns = take(arena, max_classes(call->out_width, call->kernel_width) * (int64_t)sizeof *columns);
    const int64_t row_classes = classify(call->out_height, call->stride_height, call->pad_top, call->height,
                                         call->kernel_height, call->dilation_height, row_class, rows);
    const int64_t column_classes = classify(call->out_width, call->stride_width, call->pad_left, call->width,
                                            call->kernel_width, call->dilation_width, column_class, columns);
    fill_classes(plan, arena, rows, row_classes, columns, column_classes);

    job->offsets = offsets;
    job->base = base;
    job->pop_shift = call->zero_one ? 0 : 1;
    job->row_class = row_class;
    job->column_class = column_class;
    job->plane_words = plan->image_words;
    job->row_step = call->stride_height * plan->row_words;
    job->pixel_step = call->stride_width * plan->pixel_words;
    job->weights = (const uint32_t *)(intptr_t)call->weight;
    job->starts = (const int32_t *)(intptr_t)call->starts;
    job->scale = padded_f(arena, call->scale, call->planes, n, padded);
    job->window_scale = padded_f(arena, call->window_scale, 1, n, padded);
    job->activation = padded_f(arena, call->activation, 4, n, padded);
    job->next_threshold = padded_f(arena, call->next_threshold, 1, n, padded);
    job->activation_first = call->activation_first;
    job->bit_words = (n + 31) / 32;
    if (call->limit) {
        int32_t *limit = take(arena, padded * 4);
        uint32_t *flip = take(arena, padded / 8);
        for (int64_t o = n; o < padded; o++)
            limit[o] = INT32_MIN; /* filling bits are 0: nothing is smaller */
        memset(flip, 0, (size_t)padded / 8);
        memcpy(limit, (const void *)(intptr_t)call->limit, (size_t)n * 4);
        memcpy(flip, (const void *)(intptr_t)call->flip, (size_t)job->bit_words * 4);
        job->limit = limit;
        job->flip = flip;
    }
    if (call->window_scale) {
        int16_t *row_inside = take(arena, call->out_height * 2), *column_inside = take(arena, call->out_width * 2);
        for (int64_t i = 0; i < call->out_height; i++)
            row_inside[i] = (int16_t)(rows[row_class[i]].last - rows[row_class[i]].first);
        for (int64_t i = 0; i < call->out_width; i++)
            column_inside[i] = (int16_t)(columns[column_class[i]].last - columns[column_class[i]].first);
        plan->window = (WindowJob){
            .words = plan->pixel_words, .row_words = plan->row_words, .pixel_step = job->pixel_step,
            .row_step = job->row_step, .row_gap = call->dilation_height * plan->row_words,
            .column_gap = call->dilation_width * plan->pixel_words, .kernel_height = call->kernel_height,
            .kernel_width = call->kernel_width, .groups = call->groups, .group_channels = filter,
            .out_width = call->out_width, .pop_shift = job->pop_shift, .pad_value = call->pad_value,
            .row_inside = row_inside, .column_inside = column_inside};
    }
    if (!plan->in_place) {
        float *thresholds = take(arena, call->planes * plan->pixel_words * 32 * 4);
        memset(thresholds, 0, (size_t)(call->planes * plan->pixel_words * 32) * 4);
        for (int64_t i = 0; call->thresholds && i < call->planes; i++)
            memcpy(thresholds + i * plan->pixel_words * 32, pointer_f(call->thresholds) + i * call->channels,
                   (size_t)call->channels * 4);
        plan->thresholds = thresholds;
    }
}

/* ---------------------------------------------------------------- images */

static void pack_body(void *context, int64_t begin, int64_t end, int worker)
{
    const Plan *plan = context;
    (void)worker;
    plan->variant->pack(&plan->pack, begin, end);
}

static void window_body(void *context, int64_t begin, int64_t end, int worker)
{
    const Plan *plan = context;
    (void)worker;
    plan->variant->window(&plan->window, begin, end);
}

static void conv_body(void *context, int64_t begin, int64_t end, int worker)
{
    const Plan *plan = context;
    (void)worker;
    (plan->call.masked ? plan->variant->masked : plan->variant->dense)(&plan->job, begin, end);
}

int64_t pack_units(const PackJob *job)
{
    return job->kind == INPUT_NCHW ? (job->height * job->width + PACK_PIXELS - 1) / PACK_PIXELS : job->height;
}

/* Packs and convolves one image; `plan` is the caller's own copy. */
static void run_image(Plan *plan, int64_t image, int worker, int threads)
{
    const ConvCall *call = &plan->call;
    ConvJob *job = &plan->job;
    const char *input = (const char *)(intptr_t)call->input + image * plan->input_bytes;
    const uint32_t *packed = (const uint32_t *)input;
    if (!plan->in_place) {
        uint32_t *to = plan->images + worker * call->planes * plan->image_words;
        for (int64_t plane = 0; plane < call->planes; plane++) {
            plan->pack = (PackJob){
                .input = input, .kind = call->input_kind, .channels = call->channels, .height = call->height,
                .width = call->width, .words = plan->pixel_words, .row_words = plan->row_words,
                .thresholds = plan->thresholds + plane * plan->pixel_words * 32,
                .first = to + plane * plan->image_words + call->pad_top * plan->row_words +
                         call->pad_left * plan->pixel_words};
            parallel_for(pack_body, plan, pack_units(&plan->pack), threads);
        }
        packed = to;
    }
    if (call->window_scale) {
        plan->window.image = packed;
        plan->window.sums = plan->windows + worker * job->pixels * call->groups;
        parallel_for(window_body, plan, call->out_height, threads);
        job->window = plan->window.sums;
    }
    const int64_t first = image * job->pixels;
    job->image = packed;
    job->dots = call->dots ? (int32_t *)(intptr_t)call->dots + first * call->out_channels : NULL;
    job->result = call->result ? (float *)(intptr_t)call->result + first * call->out_channels : NULL;
    job->bits = call->bits ? (uint32_t *)(intptr_t)call->bits + first * job->bit_words : NULL;
    job->residual = call->residual ? pointer_f(call->residual) + first * call->out_channels : NULL;
    parallel_for(conv_body, plan, plan->units, threads);
}

static void images_body(void *context, int64_t begin, int64_t end, int worker)
{
    Plan plan = *(const Plan *)context;
    for (int64_t image = begin; image < end; image++)
        run_image(&plan, image, worker, 1);
}

static int64_t arena_bytes(const Plan *plan)
{
    const ConvCall *call = &plan->call;
    const int64_t padded = plan->job.padded, outputs = call->out_height + call->out_width;
    const int64_t row_classes = max_classes(call->out_height, call->kernel_height);
    const int64_t column_classes = max_classes(call->out_width, call->kernel_width);
    const int64_t classes = row_classes * column_classes, takes = 32; /* each take() may lose a line */
    const int64_t rows = 2 * classes + 2 + call->planes + 8; /* arrays over filters */
    int64_t bytes = plan->job.words * 4 + rows * padded * 4 + outputs * 2 * 2 + takes * 64;
    bytes += (row_classes + column_classes) * (int64_t)sizeof(Taps) + classes * (int64_t)sizeof(void *);
    bytes += call->planes * plan->pixel_words * 32 * 4;
    if (!plan->in_place)
        bytes += plan->workers * call->planes * plan->image_words * 4;
    if (call->window_scale)
        bytes += plan->workers * plan->job.pixels * call->groups * 4;
    return bytes;
}

static void choose_chunks(Plan *plan, int threads)
{
    ConvJob *job = &plan->job;
    const int64_t bytes = plan->call.stride_height * job->pixel_step * 4;
    int64_t chunk = larger(16 * TILE_PIXELS, CHUNK_BYTES / bytes);
    if (threads > 1)
        chunk = smaller(chunk, larger(4 * TILE_PIXELS, job->pixels * job->blocks / (threads * CHUNKS_PER_THREAD)));
    job->chunk_pixels = (chunk + TILE_PIXELS - 1) / TILE_PIXELS * TILE_PIXELS;
    plan->units = (job->pixels + job->chunk_pixels - 1) / job->chunk_pixels * job->blocks;
}

const char *convolve(const Variant *variant, const ConvCall *given)
{
    Plan plan = {.call = *given, .variant = variant};
    ConvCall *call = &plan.call;
    ConvJob *job = &plan.job;
    const char *wrong = check(call);
    if (wrong || !call->batch)
        return wrong;
    use_one_row(call);

    const int threads = (int)larger(1, smaller(call->threads, 64)), lanes = call->masked ? variant->masked_lanes : variant->lanes;
    const int over_images = threads > 1 && call->batch >= threads;
    plan.workers = over_images ? threads : 1;
    plan.pixel_words = (call->channels + 31) / 32;
    plan.row_words = (call->width + call->pad_left + call->pad_right) * plan.pixel_words;
    plan.image_words = (call->height + call->pad_top + call->pad_bottom) * plan.row_words;
    const int64_t input_size = call->height * call->width;
    plan.input_bytes = 4 * input_size * (call->input_kind == INPUT_WORDS ? plan.pixel_words : call->channels);
    plan.in_place = call->input_kind == INPUT_WORDS && plan.image_words == input_size * plan.pixel_words;
    job->out_channels = call->out_channels;
    job->blocks = (call->out_channels + lanes - 1) / lanes;
    job->padded = job->blocks * lanes;
    job->groups = call->groups;
    job->planes = call->planes;
    job->out_width = call->out_width;
    job->pixels = call->out_height * call->out_width;
    job->words = call->kernel_height * call->kernel_width * call->span;
    job->block_words = job->words * lanes * (call->masked ? 2 : 1);

    Arena arena;
    if (!arena_open(&arena, arena_bytes(&plan)))
        return "out of memory";
    fill_job(&plan, &arena);
    choose_chunks(&plan, over_images ? 1 : threads);
    if (!plan.in_place) {
        const int64_t words = plan.workers * call->planes * plan.image_words;
        plan.images = take(&arena, words * 4);
        if (plan.image_words != input_size * plan.pixel_words) /* packing never writes the margin */
            memset(plan.images, 0, (size_t)words * 4);
    }
    if (call->window_scale)
        plan.windows = take(&arena, plan.workers * job->pixels * call->groups * 4);
    if (over_images)
        parallel_for(images_body, &plan, call->batch, threads);
    else
        for (int64_t image = 0; image < call->batch; image++)
            run_image(&plan, image, 0, threads);
    free(arena.memory);
    return NULL;
}

/* Only packs: call->bits gets the words of the whole batch, [planes] slowest. */
const char *pack_image(const Variant *variant, const ConvCall *call)
{
    Plan plan = {.call = *call, .variant = variant};
    const int64_t words = (call->channels + 31) / 32, image = call->height * call->width;
    if (call->channels < 1 || call->height < 1 || call->width < 1 || call->batch < 0 || call->planes < 1)
        return "sizes must be positive";
    float *thresholds = calloc((size_t)(words * 32), 4);
    if (!thresholds)
        return "out of memory";
    for (int64_t plane = 0; plane < call->planes; plane++) {
        if (call->thresholds)
            memcpy(thresholds, pointer_f(call->thresholds) + plane * call->channels, (size_t)call->channels * 4);
        for (int64_t i = 0; i < call->batch; i++) {
            plan.pack = (PackJob){
                .input = pointer_f(call->input) + i * image * call->channels, .kind = call->input_kind,
                .channels = call->channels, .height = call->height, .width = call->width, .words = words,
                .thresholds = thresholds, .row_words = call->width * words,
                .first = (uint32_t *)(intptr_t)call->bits + (plane * call->batch + i) * image * words};
            parallel_for(pack_body, &plan, pack_units(&plan.pack), (int)call->threads);
        }
    }
    free(thresholds);
    return NULL;
}
