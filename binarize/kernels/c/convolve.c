/* Images and threads: packs and convolves one image after the other, or each thread its own. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

/* Floats to pack that take longer than a sleeping worker to wake up; words to count take as long as 32. */
enum { WORTH_WAKING = 1 << 20 };

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

static void run_pack(Plan *plan, int threads)
{
    const PackJob *pack = &plan->pack;
    if (pack->height * pack->width * pack->channels < WORTH_WAKING)
        threads = 1;
    const int64_t columns = (pack->height * pack->width + PACK_PIXELS - 1) / PACK_PIXELS;
    parallel_for(pack_body, plan, pack->kind == INPUT_NCHW ? columns : pack->height, threads);
}

/* The packed planes of an image: its own memory, or filled from a float image. */
static const uint32_t *packed_image(Plan *plan, int64_t image, int worker, int threads)
{
    const ConvCall *call = &plan->call;
    const char *input = (const char *)(intptr_t)call->input + image * plan->input_bytes;
    if (plan->in_place)
        return (const uint32_t *)input;
    uint32_t *planes = plan->images + worker * call->planes * plan->image_words;
    for (int64_t i = 0; i < call->planes; i++) {
        plan->pack = (PackJob){
            .input = input, .kind = call->input_kind, .channels = call->channels, .height = call->height,
            .width = call->width, .words = plan->pixel_words, .row_words = plan->row_words,
            .thresholds = plan->thresholds + i * plan->pixel_words * 32,
            .first = planes + i * plan->image_words + call->pad_top * plan->row_words +
                     call->pad_left * plan->pixel_words};
        run_pack(plan, threads);
    }
    return planes;
}

static void run_image(Plan *plan, int64_t image, int worker, int threads)
{
    const ConvCall *call = &plan->call;
    ConvJob *job = &plan->job;
    const int64_t pixel = image * job->pixels, value = pixel * call->out_channels;
    job->image = packed_image(plan, image, worker, threads);
    if (call->window_scale) {
        plan->window.image = job->image;
        plan->window.sums = plan->windows + worker * job->pixels * call->groups;
        const int64_t read = job->pixels * plan->words;
        parallel_for(window_body, plan, call->out_height, read < WORTH_WAKING / 32 ? 1 : threads);
        job->window = plan->window.sums;
    }
    job->dots = call->dots ? (int32_t *)(intptr_t)call->dots + value : NULL;
    job->result = call->result ? (float *)(intptr_t)call->result + value : NULL;
    job->bits = call->bits ? (uint32_t *)(intptr_t)call->bits + pixel * job->bit_words : NULL;
    job->residual = call->residual ? floats_at(call->residual) + value : NULL;
    parallel_for(conv_body, plan, plan->units, threads);
}

static void images_body(void *context, int64_t begin, int64_t end, int worker)
{
    Plan plan = *(const Plan *)context; /* the jobs in it change from image to image */
    for (int64_t image = begin; image < end; image++)
        run_image(&plan, image, worker, 1);
}

const char *convolve(const Variant *variant, const ConvCall *call)
{
    Plan plan;
    const int threads = thread_count(call->threads);
    const char *wrong = plan_call(&plan, variant, call, threads);
    if (wrong)
        return wrong;
    if (plan.workers > 1)
        parallel_for(images_body, &plan, plan.call.batch, threads);
    else
        for (int64_t image = 0; image < plan.call.batch; image++)
            run_image(&plan, image, 0, threads);
    free(plan.arena.memory);
    return NULL;
}

/* Only packs: `bits` gets the words of the whole batch. */
const char *pack_image(const Variant *variant, const ConvCall *call)
{
    const int64_t words = (call->channels + 31) / 32, image = call->height * call->width;
    const char *wrong = refuse_pack(call);
    if (wrong || !call->batch)
        return wrong;
    Plan plan = {.call = *call, .variant = variant};
    float *thresholds = calloc((size_t)(words * 32), sizeof(float));
    if (!thresholds)
        return out_of_memory;
    if (call->thresholds)
        memcpy(thresholds, floats_at(call->thresholds), (size_t)call->channels * 4);
    for (int64_t i = 0; i < call->batch; i++) {
        plan.pack = (PackJob){
            .input = floats_at(call->input) + i * image * call->channels, .kind = call->input_kind,
            .channels = call->channels, .height = call->height, .width = call->width, .words = words,
            .thresholds = thresholds, .row_words = call->width * words,
            .first = (uint32_t *)(intptr_t)call->bits + i * image * words};
        run_pack(&plan, thread_count(call->threads));
    }
    free(thresholds);
    return NULL;
}
