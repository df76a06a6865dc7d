/* Checks and threads of the work in rows.h. */
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
    if (call->rows < 0 || call->length < 1 || call->period < 1)
        return "sizes must be positive";
    if (call->op != ROWS_PLANES && (call->total > call->rows * call->length ||
                                    call->total <= (call->rows - 1) * call->length))
        return "the rows do not make up the total";
    if (!call->x || (!call->out && call->op != ROWS_MAGNITUDE && call->op != ROWS_DEVIATION) ||
        (!call->g && (call->op == ROWS_ESTIMATE || call->op == ROWS_ESTIMATE_FILTER || call->op == ROWS_UNBEND)) ||
        (!call->sums && (call->op == ROWS_MAGNITUDE || call->op == ROWS_DEVIATION || call->op == ROWS_UNBEND)))
        return "an array is missing";
    const int is_bent = call->op == ROWS_SPLIT || call->op == ROWS_BEND || call->op == ROWS_UNBEND;
    if ((call->half || call->across) && !is_bent && call->op != ROWS_ESTIMATE)
        return "this is done to rows of float32 alone";
    if (call->across && (call->length % call->period || call->total % call->period))
        return "the rows are not whole pixels";
    Work work = {variant, call};
    parallel_for(rows_body, &work, call->rows, (int)call->threads);
    return NULL;
}

const char *run_filters(const Variant *variant, FiltersCall *call)
{
    if (call->filters < 1 || call->channels < 1 || call->kernel_height < 1 || call->kernel_width < 1 ||
        call->lanes != variant->lanes || call->padded < call->filters || call->padded % call->lanes)
        return "sizes do not fit";
    call->layout = !strcmp(variant->layout, "lanes")  ? LAYOUT_LANES
                   : !strcmp(variant->layout, "rows") ? LAYOUT_ROWS
                                                      : LAYOUT_NIBBLES;
    const int64_t words = call->kernel_height * call->kernel_width * ((call->channels + 31) / 32);
    call->scratch = malloc((size_t)(call->filters * words) * sizeof(uint32_t));
    if (!call->scratch)
        return "out of memory";
    Work work = {variant, call};
    parallel_for(filters_body, &work, call->filters, (int)call->threads);
    free(call->scratch);
    return NULL;
}
