/* Sizes, memory and threads of the float convolutions in floats.h. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_PIXELS = 96 }; /* output pixels that one block of filters goes over at once */

typedef struct {
    const Variant *variant;
    FloatJob job;
    float *padded; /* the image with its margin, channels last */
    int64_t padded_height, padded_width;
} Work;

static void fill_body(void *context, int64_t begin, int64_t end, int worker)
{
    const Work *work = context;
    const FloatCall *call = &work->job.call;
    const int64_t channels = call->channels, plane = call->height * call->width;
    const int64_t row_floats = work->padded_width * channels;
    (void)worker;
    for (int64_t y = begin; y < end; y++) {
        float *to = work->padded + y * row_floats;
        const int64_t row = y - call->pad_top;
        /* Of the image's columns, those that a window reaches: none where the last one ends inside the margin. */
        const int64_t reached = work->padded_width - call->pad_left, n = reached < call->width ? reached : call->width;
        memset(to, 0, (size_t)row_floats * sizeof(float));
        if (row < 0 || row >= call->height || n <= 0)
            continue;
        to += call->pad_left * channels;
        const float *from = (const float *)(intptr_t)call->input;
        if (call->input_kind == INPUT_NHWC)
            memcpy(to, from + row * call->width * channels, (size_t)(n * channels) * sizeof(float));
        else
            for (int64_t c = 0; c < channels; c++)
                for (int64_t x = 0; x < n; x++)
                    to[x * channels + c] = from[c * plane + row * call->width + x];
    }
}

static void floats_body(void *context, int64_t begin, int64_t end, int worker)
{
    const Work *work = context;
    (void)worker;
    work->variant->floats(&work->job, begin, end);
}

static void pooled_body(void *context, int64_t begin, int64_t end, int worker)
{
    const Work *work = context;
    const FloatCall *call = &work->job.call;
    const int64_t floats = work->job.ring * call->out_width * call->out_channels;
    work->variant->pooled(&work->job, begin, end, work->job.rows + worker * floats);
}

static void run_image(Work *work, int threads)
{
    FloatJob *job = &work->job;
    const FloatCall *call = &job->call;
    job->image = (const float *)(intptr_t)call->input;
    if (work->padded) {
        parallel_for(fill_body, work, work->padded_height, threads);
        job->image = work->padded;
    }
    if (call->pool)
        parallel_for(pooled_body, work, call->pooled_height, threads);
    else
        parallel_for(floats_body, work, job->chunks * job->blocks, threads);
}

const char *run_floats(const Variant *variant, const FloatCall *call)
{
    const char *wrong = refuse_floats(variant, call);
    if (wrong || !call->batch)
        return wrong;
    const int threads = thread_count(call->threads);
    const int64_t lanes = variant->float_lanes, pixels = call->out_height * call->out_width;
    Work work = {.variant = variant, .job = {.call = *call, .result = (float *)(intptr_t)call->result}};
    FloatJob *job = &work.job;
    work.padded_height = (call->out_height - 1) * call->stride_height + call->kernel_height;
    work.padded_width = (call->out_width - 1) * call->stride_width + call->kernel_width;
    const int inside = call->input_kind == INPUT_NHWC && !call->pad_top && !call->pad_left &&
                       work.padded_height <= call->height && work.padded_width <= call->width;
    const int64_t row_floats = (inside ? call->width : work.padded_width) * call->channels;
    job->ring = call->pool < call->out_height ? call->pool : call->out_height;
    const int64_t pixel_floats = call->out_channels * threads;
    if (call->pool && job->ring * call->out_width > MOST_SCRATCH / (int64_t)sizeof(float) / pixel_floats)
        return "the rows that a window of the pool holds take more than 1 GiB";
    if (!inside)
        work.padded = malloc((size_t)(work.padded_height * row_floats) * sizeof(float));
    if (call->pool)
        job->rows = malloc((size_t)(job->ring * call->out_width * pixel_floats) * sizeof(float));
    if ((!inside && !work.padded) || (call->pool && !job->rows))
        wrong = out_of_memory;
    job->image_row = row_floats;
    /* Steps that nobody takes could overflow. */
    job->row_step = call->out_height > 1 ? call->stride_height * row_floats : 0;
    job->pixel_step = call->out_width > 1 ? call->stride_width * call->channels : 0;
    job->run = call->kernel_width * call->channels;
    job->blocks = (call->out_channels + lanes - 1) / lanes;
    job->block_weights = call->kernel_height * job->run * lanes;
    job->chunk_pixels = CHUNK_PIXELS;
    job->chunks = (pixels + CHUNK_PIXELS - 1) / CHUNK_PIXELS;
    const int64_t outputs = call->pool ? call->pooled_height * call->pooled_width : pixels;
    for (int64_t image = 0; image < call->batch && !wrong; image++) {
        run_image(&work, threads);
        job->call.input += call->height * call->width * call->channels * (int64_t)sizeof(float);
        job->result += outputs * call->out_channels;
    }
    free(work.padded);
    free(job->rows);
    return wrong;
}
