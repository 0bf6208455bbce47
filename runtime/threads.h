/* A pool of worker threads for the host: one parallel loop at a time, in which the caller takes part. Several threads
 * may call: their loops run one after another, in the order in which they were asked for.
 *
 * Workers wait for the next loop by spinning for a few microseconds, then sleep. Which thread runs which part is
 * decided at run time by an atomic counter, so a task's result must not depend on it.
 */
#ifndef SLUICE_RUNTIME_THREADS_H
#define SLUICE_RUNTIME_THREADS_H

#include "sluice/status.h"

typedef struct sluice_threads sluice_threads;

/* `count` threads including the caller's; 0: one for each core that this process may use. */
SLUICE_MUST_USE sluice_status *sluice_threads_create(unsigned count, sluice_threads **out_threads);
void sluice_threads_close(sluice_threads *threads); /* NULL is allowed */
unsigned sluice_threads_count(const sluice_threads *threads);

/* Part [first, last) of a loop, on thread `thread`. 0 is the caller: of a loop that is too short for the others there
 * may be several at once, each in a call of its own. */
typedef void sluice_threads_task(void *user, unsigned thread, int64_t first, int64_t last);

/* The turn of the calling thread: until its end the loops of other threads wait, so that many loops in a row do not
 * wait for each other one by one. Turns of one thread may lie in one another. A loop outside of any is a turn of its
 * own. */
void sluice_threads_begin(sluice_threads *threads);
void sluice_threads_end(sluice_threads *threads);

/* Runs `task` over [0, count), in parts of at most `part` >= 1, and returns when all of it is done. From any thread,
 * but not from inside a task. */
void sluice_threads_run(sluice_threads *threads, int64_t count, int64_t part, sluice_threads_task *task, void *user);

#endif
