/* Sizes, memory and parameters of a call, the same for all of its images. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

/* A chunk of packed input stays in the second-level cache under every block of filters. */
enum { CHUNK_BYTES = 256 * 1024, CHUNKS_PER_THREAD = 8, LINE = 64 };
/* Entries of the lists of words to read, which are made in each call. */
enum { MOST_LISTED = 1 << 15 };

static int64_t whole_lines(int64_t bytes)
{
    return (bytes + LINE - 1) & ~(int64_t)(LINE - 1);
}

void *arena_take(Arena *arena, int64_t bytes)
{
    void *taken = arena->free;
    if (whole_lines(bytes) > arena->end - arena->free)
        abort(); /* arena_bytes() below is wrong: better than writing beyond the end */
    arena->free += whole_lines(bytes);
    return taken;
}

/* A 1x1 convolution without margin does not care where rows end. */
static void use_one_row(ConvCall *call)
{
    const int64_t pads = call->pad_top + call->pad_bottom + call->pad_left + call->pad_right;
    if (call->kernel_height * call->kernel_width != 1 || pads || call->out_height != call->height ||
        call->out_width != call->width)
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

/* A step that nobody takes has no length: one of any other could overflow. */
static void forget_unused_steps(ConvCall *call)
{
    if (call->out_height == 1)
        call->stride_height = 1;
    if (call->out_width == 1)
        call->stride_width = 1;
    if (call->kernel_height == 1)
        call->dilation_height = 1;
    if (call->kernel_width == 1)
        call->dilation_width = 1;
}

static void fill_sizes(Plan *plan, const Variant *variant)
{
    const ConvCall *call = &plan->call;
    ConvJob *job = &plan->job;
    const int lanes = call->masked ? variant->masked_lanes : variant->lanes;
    const int64_t input_size = call->height * call->width;
    plan->pixel_words = (call->channels + 31) / 32;
    plan->row_words = (call->width + call->pad_left + call->pad_right) * plan->pixel_words;
    plan->image_words = (call->height + call->pad_top + call->pad_bottom) * plan->row_words;
    plan->input_bytes = 4 * input_size * (call->input_kind == INPUT_WORDS ? plan->pixel_words : call->channels);
    plan->in_place = call->input_kind == INPUT_WORDS && plan->image_words == input_size * plan->pixel_words;
    job->out_channels = call->out_channels;
    job->blocks = (call->out_channels + lanes - 1) / lanes;
    job->padded = job->blocks * lanes;
    job->bit_words = (call->out_channels + 31) / 32;
    job->groups = call->groups;
    job->planes = call->planes;
    job->out_width = call->out_width;
    job->pixels = call->out_height * call->out_width;
    plan->words = call->kernel_height * call->kernel_width * call->span;
    job->block_words = plan->words * lanes * (call->masked ? 2 : 1);
    job->pop_shift = call->zero_one ? 0 : 1;
    job->plane_words = plan->image_words;
    job->row_step = call->stride_height * plan->row_words;
    job->pixel_step = call->stride_width * plan->pixel_words;
    job->weights = (const uint32_t *)(intptr_t)call->weight;
    job->starts = integers_at(call->starts);
    job->activation_first = call->activation_first;
}

static void choose_chunks(Plan *plan, int threads)
{
    ConvJob *job = &plan->job;
    const int64_t bytes = plan->call.stride_height * job->pixel_step * 4; /* of input for one output pixel */
    int64_t chunk = larger(16 * MOST_PIXELS, CHUNK_BYTES / bytes);
    if (threads > 1)
        chunk = smaller(chunk, larger(4 * MOST_PIXELS, job->pixels * job->blocks / (threads * CHUNKS_PER_THREAD)));
    job->chunk_pixels = (chunk + MOST_PIXELS - 1) / MOST_PIXELS * MOST_PIXELS;
    plan->units = (job->pixels + job->chunk_pixels - 1) / job->chunk_pixels * job->blocks;
}

/* Whether taps outside the image are left out, and the most classes of output pixels that there can be. */
static int64_t choose_skips(Plan *plan)
{
    const ConvCall *call = &plan->call;
    const int64_t classes = most_classes(call->out_height, call->kernel_height) *
                            most_classes(call->out_width, call->kernel_width);
    const int64_t pads = call->pad_top + call->pad_bottom + call->pad_left + call->pad_right;
    plan->skips = plan->variant->skips && !call->masked && pads && classes * plan->words <= MOST_LISTED;
    return classes;
}

/* Tables: enough for all that is taken below and in classes.c, but what each worker has. */
static int64_t table_bytes(const Plan *plan, int64_t classes)
{
    const ConvCall *call = &plan->call;
    const int64_t row_classes = most_classes(call->out_height, call->kernel_height);
    const int64_t column_classes = most_classes(call->out_width, call->kernel_width);
    const int64_t regions = plan->skips ? classes : 1;
    const int64_t takes = 24 + 2 * regions, outputs = call->out_height + call->out_width;
    const int64_t filter_arrays = 1 + 3 * classes + call->planes + 6;
    int64_t bytes = takes * LINE + filter_arrays * plan->job.padded * 4;
    bytes += regions * (plan->words * 2 * 4 + (int64_t)sizeof(Region));
    bytes += (row_classes + column_classes) * (int64_t)sizeof(Taps) + outputs * 2 * 2;
    return bytes + call->planes * plan->pixel_words * 32 * 4;
}

/* The packed image and the window sums of one worker. */
static int64_t worker_bytes(const Plan *plan)
{
    const ConvCall *call = &plan->call;
    int64_t bytes = plan->in_place ? 0 : call->planes * plan->image_words * 4;
    if (call->window_scale)
        bytes += plan->job.pixels * call->groups * 4;
    return bytes;
}

/* The words of a rectangle of taps. */
static void fill_region(Plan *plan, Region *region, Taps rows, Taps columns)
{
    const ConvCall *call = &plan->call;
    const int64_t wide = columns.last - columns.first, lanes = plan->variant->lanes;
    region->words = (rows.last - rows.first) * wide * call->span;
    int32_t *offsets = arena_take(&plan->arena, region->words * 4);
    int32_t *index = arena_take(&plan->arena, region->words * 4);
    region->offsets = offsets;
    region->index = index;
    for (int64_t i = rows.first; i < rows.last; i++)
        for (int64_t j = columns.first; j < columns.last; j++)
            for (int64_t k = 0; k < call->span; k++) {
                *offsets++ = (int32_t)(i * call->dilation_height * plan->row_words +
                                       j * call->dilation_width * plan->pixel_words + k);
                *index++ = (int32_t)(((i * call->kernel_width + j) * call->span + k) * lanes);
            }
}

static int64_t run_length(const int16_t *classes, int64_t begin, int64_t end)
{
    int64_t i = begin;
    while (i < end && classes[i] == classes[begin])
        i++;
    return i - begin;
}

/* The largest comes first: weights are fetched from afar while several pixels wait for each. */
static void number_regions(Region *regions, int64_t count)
{
    int64_t largest = 0, first = 0;
    for (int64_t i = 1; i < count; i++)
        if (regions[i].width * regions[i].height > regions[largest].width * regions[largest].height)
            largest = i;
    const Region other = regions[0];
    regions[0] = regions[largest];
    regions[largest] = other;
    for (int64_t i = 0; i < count; i++) {
        regions[i].first = first;
        first += regions[i].width * regions[i].height;
    }
}

/* A class of output pixels is a rectangle: its rows are neighbours, and its columns are. */
static void fill_regions(Plan *plan, const Taps *rows, int64_t row_classes, const Taps *columns,
                         int64_t column_classes)
{
    const ConvCall *call = &plan->call;
    ConvJob *job = &plan->job;
    const int64_t most = plan->skips ? row_classes * column_classes : 1;
    Region *regions = arena_take(&plan->arena, most * (int64_t)sizeof(Region));
    job->regions = regions;
    job->region_count = 0;
    if (!plan->skips) {
        *regions = (Region){.width = call->out_width, .height = call->out_height};
        fill_region(plan, regions, (Taps){0, call->kernel_height}, (Taps){0, call->kernel_width});
        job->region_count = 1;
        return;
    }
    for (int64_t y = 0; y < call->out_height;) {
        const int64_t height = run_length(job->row_class, y, call->out_height);
        for (int64_t x = 0; x < call->out_width; job->region_count++) {
            const int64_t width = run_length(job->column_class, x, call->out_width);
            Region *region = regions + job->region_count;
            *region = (Region){.row = y, .column = x, .width = width, .height = height};
            fill_region(plan, region, rows[job->row_class[y]], columns[job->column_class[x]]);
            x += width;
        }
        y += height;
    }
    number_regions(regions, job->region_count);
}

/* Rows over filters, copied into arrays that have room for whole blocks. */
static const float *padded_rows(Plan *plan, int64_t address, int64_t rows)
{
    const int64_t n = plan->job.out_channels, padded = plan->job.padded;
    if (!address)
        return NULL;
    float *to = arena_take(&plan->arena, rows * padded * 4);
    memset(to, 0, (size_t)(rows * padded) * 4);
    for (int64_t i = 0; i < rows; i++)
        memcpy(to + i * padded, floats_at(address) + i * n, (size_t)n * 4);
    return to;
}

static void fill_parameters(Plan *plan)
{
    const ConvCall *call = &plan->call;
    ConvJob *job = &plan->job;
    job->scale = padded_rows(plan, call->scale, call->planes);
    job->window_scale = padded_rows(plan, call->window_scale, 1);
    job->activation = padded_rows(plan, call->activation, 4);
    job->next_threshold = padded_rows(plan, call->next_threshold, 1);
    if (call->limit) {
        uint32_t *flip = arena_take(&plan->arena, job->padded / 8);
        memset(flip, 0, (size_t)job->padded / 8);
        memcpy(flip, (const void *)(intptr_t)call->flip, (size_t)job->bit_words * 4);
        job->flip = flip;
    }
    if (!plan->in_place) {
        const int64_t padded = plan->pixel_words * 32;
        float *thresholds = arena_take(&plan->arena, call->planes * padded * 4);
        memset(thresholds, 0, (size_t)(call->planes * padded) * 4);
        for (int64_t i = 0; call->thresholds && i < call->planes; i++)
            memcpy(thresholds + i * padded, floats_at(call->thresholds) + i * call->channels,
                   (size_t)call->channels * 4);
        plan->thresholds = thresholds;
    }
}

static void fill_window(Plan *plan, const Taps *rows, const Taps *columns)
{
    const ConvCall *call = &plan->call;
    const ConvJob *job = &plan->job;
    int16_t *row_inside = arena_take(&plan->arena, call->out_height * 2);
    int16_t *column_inside = arena_take(&plan->arena, call->out_width * 2);
    for (int64_t i = 0; i < call->out_height; i++)
        row_inside[i] = (int16_t)(rows[job->row_class[i]].last - rows[job->row_class[i]].first);
    for (int64_t i = 0; i < call->out_width; i++)
        column_inside[i] = (int16_t)(columns[job->column_class[i]].last - columns[job->column_class[i]].first);
    plan->window = (WindowJob){
        .pixel_step = job->pixel_step, .row_step = job->row_step,
        .row_gap = call->dilation_height * plan->row_words,
        .column_gap = call->dilation_width * plan->pixel_words,
        .kernel_height = call->kernel_height, .kernel_width = call->kernel_width, .groups = call->groups,
        .group_channels = call->channels / call->groups, .out_width = call->out_width,
        .pop_shift = job->pop_shift, .pad_value = call->pad_value,
        .row_inside = row_inside, .column_inside = column_inside};
    plan->windows = arena_take(&plan->arena, plan->workers * job->pixels * call->groups * 4);
}

static void fill_border(Plan *plan)
{
    const ConvCall *call = &plan->call;
    ConvJob *job = &plan->job;
    Arena *arena = &plan->arena;
    int16_t *row_class = arena_take(arena, call->out_height * 2);
    int16_t *column_class = arena_take(arena, call->out_width * 2);
    Taps *rows = arena_take(arena, most_classes(call->out_height, call->kernel_height) * (int64_t)sizeof(Taps));
    Taps *columns = arena_take(arena, most_classes(call->out_width, call->kernel_width) * (int64_t)sizeof(Taps));
    const int64_t row_classes = classify(call->out_height, call->stride_height, call->pad_top, call->height,
                                         call->kernel_height, call->dilation_height, row_class, rows);
    const int64_t column_classes = classify(call->out_width, call->stride_width, call->pad_left, call->width,
                                            call->kernel_width, call->dilation_width, column_class, columns);
    job->row_class = row_class;
    job->column_class = column_class;
    fill_classes(plan, rows, row_classes, columns, column_classes);
    fill_regions(plan, rows, row_classes, columns, column_classes);
    if (call->window_scale)
        fill_window(plan, rows, columns);
}

static const char *take_memory(Plan *plan, int64_t tables)
{
    Arena *arena = &plan->arena;
    const int64_t bytes = tables + plan->workers * worker_bytes(plan);
    arena->memory = malloc((size_t)bytes + LINE);
    if (!arena->memory)
        return out_of_memory;
    arena->free = (char *)(intptr_t)whole_lines((int64_t)(intptr_t)arena->memory);
    arena->end = arena->free + bytes;
    return NULL;
}

const char *plan_call(Plan *plan, const Variant *variant, const ConvCall *call, int threads)
{
    const char *wrong = refuse_conv(variant, call);
    *plan = (Plan){.call = *call, .variant = variant};
    if (wrong || !call->batch)
        return wrong;
    forget_unused_steps(&plan->call);
    use_one_row(&plan->call);
    fill_sizes(plan, variant);
    plan->workers = threads > 1 && plan->call.batch >= threads ? threads : 1;
    if (plan->workers * worker_bytes(plan) > MOST_SCRATCH)
        plan->workers = 1;
    choose_chunks(plan, plan->workers > 1 ? 1 : threads);
    const int64_t tables = table_bytes(plan, choose_skips(plan));
    wrong = tables > MOST_SCRATCH ? "the tables of the border take more than 1 GiB" : take_memory(plan, tables);
    if (wrong)
        return wrong;
    fill_border(plan);
    fill_parameters(plan);
    if (!plan->in_place) {
        const int64_t words = plan->workers * call->planes * plan->image_words;
        plan->images = arena_take(&plan->arena, words * 4);
        if (plan->image_words != plan->call.height * plan->call.width * plan->pixel_words)
            memset(plan->images, 0, (size_t)words * 4); /* the margin, which packing never writes */
    }
    return NULL;
}
