/* A pool of workers that sleep between calls.
 *
 * Nobody spins, and nobody waits for a worker that has not begun: ranges are handed out one by one, the caller takes
 * them like the workers do, and at the end it waits only for ranges that are being worked on. On a machine with more
 * to do than processors a call is thus hardly slower than with one thread. Ranges become smaller towards the end, so
 * that nobody waits for long.
 *
 * One caller at a time owns the pool; a second thread that calls meanwhile does its work alone. After a fork the
 * child starts with an empty pool. */
#include "kernels.h"

enum { SHARES = 2 }; /* of what is left, for each thread: a range is one of them */

#ifdef _WIN32

void parallel_for(Body body, void *context, int64_t n, int threads)
{
    (void)threads;
    body(context, 0, n, 0);
}

#else

#include <pthread.h>

static struct {
    pthread_mutex_t owner;   /* held by the caller whose work is being done */
    pthread_mutex_t mutex;   /* protects all below */
    pthread_cond_t wake, done;
    uint64_t round;          /* counts the calls; a change is the signal to look for work */
    int workers, threads;    /* there are; the call wants, with the caller */
    int active;              /* workers inside a range */
    int64_t next, n;         /* [next, n) is still to be taken */
    Body body;
    void *context;
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER, .mutex = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

/* Takes ranges until none is left. Called and left with the mutex held. */
static void take_ranges(int worker)
{
    while (pool.next < pool.n) {
        const int64_t begin = pool.next, share = (pool.n - begin) / (SHARES * pool.threads);
        const int64_t end = begin + (share > 1 ? share : 1);
        const Body body = pool.body;
        void *context = pool.context;
        pool.next = end;
        pool.active++;
        pthread_mutex_unlock(&pool.mutex);
        body(context, begin, end, worker);
        pthread_mutex_lock(&pool.mutex);
        pool.active--;
    }
}

static void *worker_main(void *argument)
{
    const int worker = (int)(intptr_t)argument; /* the caller is number 0 */
    uint64_t seen = 0;
    pthread_mutex_lock(&pool.mutex);
    for (;;) {
        while (pool.round == seen)
            pthread_cond_wait(&pool.wake, &pool.mutex);
        seen = pool.round;
        if (worker >= pool.threads)
            continue;
        take_ranges(worker);
        if (pool.active == 0)
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
    pool.workers = pool.active = 0;
    pool.next = pool.n = 0;
}

/* Called with the mutex held. Fewer workers than wished are enough. */
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
    ensure_workers(threads - 1);
    pool.round++;
    pool.threads = threads;
    pool.body = body;
    pool.context = context;
    pool.next = 0;
    pool.n = n;
    pthread_cond_broadcast(&pool.wake);
    take_ranges(0);
    while (pool.active > 0)
        pthread_cond_wait(&pool.done, &pool.mutex);
    pthread_mutex_unlock(&pool.mutex);
    pthread_mutex_unlock(&pool.owner);
}

#endif
