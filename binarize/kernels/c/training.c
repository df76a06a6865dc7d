/* Threads of the work in rows.h. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const Variant *variant;
    const void *call;
} Work;

static void rows_body(void *context, int64_t begin, int64_t end, int worker)
{
    const Work *work = context;
    (void)worker;
    work->variant->rows(work->call, begin, end);
}

static void filters_body(void *context, int64_t begin, int64_t end, int worker)
{
    const Work *work = context;
    (void)worker;
    work->variant->filters(work->call, begin, end);
}

const char *run_rows(const Variant *variant, const RowsCall *call)
{
    const char *wrong = refuse_rows(call);
    if (wrong)
        return wrong;
    Work work = {variant, call};
    parallel_for(rows_body, &work, call->rows, thread_count(call->threads));
    return NULL;
}

const char *run_filters(const Variant *variant, FiltersCall *call)
{
    const char *wrong = refuse_filters(variant, call);
    if (wrong)
        return wrong;
    call->layout = !strcmp(variant->layout, "lanes")  ? LAYOUT_LANES
                   : !strcmp(variant->layout, "rows") ? LAYOUT_ROWS
                                                      : LAYOUT_NIBBLES;
    const int64_t words = call->kernel_height * call->kernel_width * ((call->channels + 31) / 32);
    call->scratch = malloc((size_t)(call->filters * words) * sizeof(uint32_t));
    if (!call->scratch)
        return out_of_memory;
    Work work = {variant, call};
    parallel_for(filters_body, &work, call->filters, thread_count(call->threads));
    free(call->scratch);
    return NULL;
}
