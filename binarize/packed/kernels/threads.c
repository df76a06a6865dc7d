/* A pool of workers that sleep between calls: no spinning, so that an oversubscribed machine is not made worse.
 *
 * One caller at a time owns the pool; a second thread that calls meanwhile does its work alone.  After a fork the
 * child starts with an empty pool. */
#include "kernels.h"

static void range_of(int64_t n, int part, int parts, int64_t *begin, int64_t *end)
{
    *begin = n * part / parts;
    *end = n * (part + 1) / parts;
}

#ifdef _WIN32

void parallel_for(Body body, void *context, int64_t n, int threads)
{
    (void)threads;
    (void)range_of;
    body(context, 0, n, 0);
}

#else

#include <pthread.h>

static struct {
    pthread_mutex_t owner;   /* held by the caller whose work is being done */
    pthread_mutex_t mutex;   /* protects all below */
    pthread_cond_t wake, done;
    uint64_t round;          /* counts the calls; a change is the signal to work */
    int workers, parts, pending;
    Body body;
    void *context;
    int64_t n;
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER, .mutex = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static void *worker_main(void *argument)
{
    int part = (int)(intptr_t)argument; /* the caller itself is part 0 */
    uint64_t seen = 0;
    pthread_mutex_lock(&pool.mutex);
    /* A worker is created during a call; it must take part in that one, so it starts one round behind. */
    seen = pool.round - 1;
    for (;;) {
        while (pool.round == seen)
            pthread_cond_wait(&pool.wake, &pool.mutex);
        seen = pool.round;
        if (part >= pool.parts)
            continue;
        int64_t begin, end;
        range_of(pool.n, part, pool.parts, &begin, &end);
        pthread_mutex_unlock(&pool.mutex);
        pool.body(pool.context, begin, end, part);
        pthread_mutex_lock(&pool.mutex);
        if (--pool.pending == 0)
            pthread_cond_signal(&pool.done);
    }
    return NULL;
}

static void forget_workers(void)
{
    pthread_mutex_t fresh_mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t fresh_condition = PTHREAD_COND_INITIALIZER;
    pool.owner = pool.mutex = fresh_mutex;
    pool.wake = pool.done = fresh_condition;
    pool.workers = 0;
}

/* Called with the mutex held.  Fewer workers than wished are enough: the ranges are cut after. */
static void ensure_workers(int wanted)
{
    static int registered;
    if (!registered)
        registered = pthread_atfork(NULL, NULL, forget_workers) == 0;
    while (registered && pool.workers < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker_main, (void *)(intptr_t)(pool.workers + 1)))
            return;
        pthread_detach(thread);
        pool.workers++;
    }
}

void parallel_for(Body body, void *context, int64_t n, int threads)
{
    if (threads > n)
        threads = (int)n;
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    if (threads <= 1 || pthread_mutex_trylock(&pool.owner)) {
        body(context, 0, n, 0);
        return;
    }
    pthread_mutex_lock(&pool.mutex);
    pool.round++;
    ensure_workers(threads - 1);
    pool.parts = pool.workers + 1 < threads ? pool.workers + 1 : threads;
    pool.pending = pool.parts - 1;
    pool.body = body;
    pool.context = context;
    pool.n = n;
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.mutex);

    int64_t begin, end;
    range_of(n, 0, pool.parts, &begin, &end);
    body(context, begin, end, 0);

    pthread_mutex_lock(&pool.mutex);
    while (pool.pending > 0)
        pthread_cond_wait(&pool.done, &pool.mutex);
    pthread_mutex_unlock(&pool.mutex);
    pthread_mutex_unlock(&pool.owner);
}

#endif
