/* Collectives over memory that the processes of one machine share.
 *
 * A message goes in exchanges, of which each moves up to `slot_bytes` bytes of every rank. There are two slots for each
 * rank, used in turn:
 *
 *     exchange      5         6         7
 *     slot        [1][r]    [0][r]    [1][r]      r writes its part there, says "arrived at 5",
 *                                                 waits until all have, and reads all ranks' parts
 *
 * Two are enough: who writes for exchange 7 has seen all arrive at 6, so all are done reading what was written for 5.
 *
 * Whether a rank still lives is asked of the kernel: each rank holds a robust mutex, which the kernel marks when its
 * holder ends, however it ends. Process ids would not do: a child that was killed keeps its id until its parent looks.
 */
#include "runtime/collectives.h"
#include "runtime/model.h"
#include "runtime/ranks/fault.h"
#include "sluice/memory.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x736c7569636567ull
#define LARGEST_MESSAGE ((size_t)1 << 30)
enum { CALM_AFTER = 64, LOOK_EVERY = 16 };
#define SHORTEST_NAP 50e3 /* nanoseconds */
#define LONGEST_NAP 2e6

typedef struct rank_state {
  pthread_mutex_t alive;         /* held by the rank from joining to leaving */
  atomic_bool joined;            /* `alive` was locked; stays set */
  atomic_bool left;              /* of its own will */
  atomic_uint_least64_t arrived; /* the last exchange it came to; the first is 1 */
  sluice_call calls[2];          /* of the exchanges, in turn like the slots */
} rank_state;

/* The first fault that any rank found, for all to report: `found` is claimed, then `what` written, then `told`. */
typedef struct shared_fault {
  atomic_bool found, told;
  sluice_fault what;
} shared_fault;

typedef struct shared_memory {
  uint64_t magic;
  uint32_t ranks;
  size_t slot_bytes, total_bytes;
  shared_fault fault;
  rank_state rank[SLUICE_MOST_RANKS];
  /* then the slots [2][ranks][slot_bytes], at `slots_at` */
} shared_memory;

typedef struct shared_group {
  sluice_group group;
  shared_memory *memory;
  char *slots;
  size_t total_bytes; /* of the mapping */
  uint64_t exchange;  /* the last one */
} shared_group;

static size_t slots_at(void) {
  return (sizeof(shared_memory) + 63) / 64 * 64;
}

static shared_group *shared_of(sluice_group *group) {
  return (shared_group *)(void *)group;
}

static char *slot_of(const shared_group *s, uint64_t exchange, uint32_t rank) {
  return s->slots + ((exchange % 2) * s->group.ranks + rank) * s->memory->slot_bytes;
}

void sluice_group_step(sluice_group *group, uint64_t step) {
  group->step = step;
}

/* ---- Faults ---- */

/* Makes a fault the group's, unless it has one. */
static void report(shared_group *s, sluice_fault_kind kind, uint32_t rank, const sluice_call *expected,
                   const sluice_call *made) {
  shared_fault *f = &s->memory->fault;
  if (atomic_exchange(&f->found, true)) return;
  f->what =
      (sluice_fault){.kind = kind, .rank = rank, .deadline = s->group.deadline, .expected = *expected, .made = *made};
  atomic_store(&f->told, true);
}

/* Whether a rank that has joined is gone. The mutex is free when it left or ended, and broken when we were not the
 * first to find out; who takes it leaves it broken. */
static bool is_gone(rank_state *rank) {
  int error = pthread_mutex_trylock(&rank->alive);
  if (error == 0 || error == EOWNERDEAD) pthread_mutex_unlock(&rank->alive);
  return error != EBUSY;
}

/* Looks for a fault of a rank that has not come to the exchange yet. */
static void look(shared_group *s, uint32_t rank, const sluice_call *mine, double waited) {
  rank_state *other = &s->memory->rank[rank];
  bool joined = atomic_load(&other->joined);
  bool gone = joined && is_gone(other);
  if (atomic_load(&other->arrived) >= s->exchange) return; /* it came, and then went */
  if (gone)
    report(s, atomic_load(&other->left) ? SLUICE_FAULT_LEFT : SLUICE_FAULT_ENDED, rank, mine, mine);
  else if (waited > s->group.deadline)
    report(s, joined ? SLUICE_FAULT_LATE : SLUICE_FAULT_ABSENT, rank, mine, mine);
}

/* The group's fault as an error. Who claimed it may have ended before it told: then the rank alone is unknown. */
static sluice_status *fault_of(const shared_group *s, const sluice_call *mine) {
  const shared_fault *f = &s->memory->fault;
  for (int i = 0; i < 1000 && !atomic_load(&f->told); i++) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  if (atomic_load(&f->told)) return sluice_fault_error(&f->what);
  return sluice_error(SLUICE_DEVICE, "a rank ended in step %llu while it reported another one's fault",
                      (unsigned long long)mine->step);
}

/* ---- Exchanges ---- */

/* Longer naps when one has waited long: for the next request, say. They add a hundredth to the wait. */
static void nap(double waited) {
  double nanoseconds = waited * 1e7;
  if (nanoseconds < SHORTEST_NAP) nanoseconds = SHORTEST_NAP;
  if (nanoseconds > LONGEST_NAP) nanoseconds = LONGEST_NAP;
  nanosleep(&(struct timespec){.tv_nsec = (long)nanoseconds}, NULL);
}

static sluice_status *wait_for(shared_group *s, uint32_t rank, const sluice_call *mine) {
  const rank_state *other = &s->memory->rank[rank];
  double start = 0, waited = 0;
  for (uint32_t turn = 0; atomic_load_explicit(&other->arrived, memory_order_acquire) < s->exchange; turn++) {
    if (turn < CALM_AFTER) {
      sched_yield();
      continue;
    }
    if (turn == CALM_AFTER) start = sluice_seconds();
    if (turn % LOOK_EVERY == 0) {
      waited = sluice_seconds() - start;
      look(s, rank, mine, waited);
      if (atomic_load(&s->memory->fault.found)) return fault_of(s, mine);
    }
    nap(waited);
  }
  return NULL;
}

/* Begins the next exchange: all ranks' parts lie in its slots when this returns. */
static sluice_status *exchange(shared_group *s, const sluice_call *mine, const void *part, size_t bytes) {
  rank_state *own = &s->memory->rank[s->group.rank];
  if (atomic_load(&s->memory->fault.found)) return fault_of(s, mine);
  s->exchange++;
  own->calls[s->exchange % 2] = *mine;
  if (bytes) memcpy(slot_of(s, s->exchange, s->group.rank), part, bytes);
  atomic_store_explicit(&own->arrived, s->exchange, memory_order_release);
  for (uint32_t r = 0; r < s->group.ranks; r++) SLUICE_TRY(wait_for(s, r, mine));
  const sluice_call *first = &s->memory->rank[0].calls[s->exchange % 2];
  for (uint32_t r = 1; r < s->group.ranks; r++) {
    const sluice_call *other = &s->memory->rank[r].calls[s->exchange % 2];
    if (memcmp(other, first, sizeof *other) == 0) continue;
    report(s, SLUICE_FAULT_DIFFERS, r, first, other);
    return fault_of(s, mine);
  }
  return NULL;
}

static size_t part_of(const shared_group *s, size_t left) {
  return left < s->memory->slot_bytes ? left : s->memory->slot_bytes;
}

static sluice_status *all_reduce(sluice_group *group, float *values, size_t count) {
  shared_group *s = shared_of(group);
  sluice_call mine = {.kind = SLUICE_CALL_ALL_REDUCE, .bytes = count * sizeof *values, .step = group->step};
  size_t done = 0;
  do { /* once for no bytes, too: all meet */
    size_t bytes = part_of(s, (size_t)mine.bytes - done * sizeof *values), here = bytes / sizeof *values;
    SLUICE_TRY(exchange(s, &mine, values + done, bytes));
    if (bytes) memcpy(values + done, slot_of(s, s->exchange, 0), bytes);
    for (uint32_t r = 1; r < group->ranks; r++) {
      const float *other = (const float *)(const void *)slot_of(s, s->exchange, r);
      for (size_t i = 0; i < here; i++) values[done + i] += other[i];
    }
    done += here;
  } while (done < count);
  return NULL;
}

static sluice_status *all_gather(sluice_group *group, const void *mine_data, size_t bytes, void *all) {
  shared_group *s = shared_of(group);
  sluice_call mine = {.kind = SLUICE_CALL_ALL_GATHER, .bytes = bytes, .step = group->step};
  size_t done = 0;
  do {
    size_t here = part_of(s, bytes - done);
    SLUICE_TRY(exchange(s, &mine, (const char *)mine_data + done, here));
    for (uint32_t r = 0; r < group->ranks && here; r++)
      memcpy((char *)all + r * bytes + done, slot_of(s, s->exchange, r), here);
    done += here;
  } while (done < bytes);
  return NULL;
}

static sluice_status *broadcast(sluice_group *group, void *data, size_t bytes) {
  shared_group *s = shared_of(group);
  sluice_call mine = {.kind = SLUICE_CALL_BROADCAST, .bytes = bytes, .step = group->step};
  size_t done = 0;
  do {
    size_t here = part_of(s, bytes - done);
    SLUICE_TRY(exchange(s, &mine, (char *)data + done, group->rank ? 0 : here));
    if (group->rank && here) memcpy((char *)data + done, slot_of(s, s->exchange, 0), here);
    done += here;
  } while (done < bytes);
  return NULL;
}

static void leave(sluice_group *group) {
  if (!group) return;
  shared_group *s = shared_of(group);
  rank_state *own = &s->memory->rank[group->rank];
  atomic_store(&own->left, true);
  pthread_mutex_unlock(&own->alive);
  munmap(s->memory, s->total_bytes);
  sluice_release(s);
}

static const sluice_collectives shared_collectives = {.name = "shared memory",
                                                      .all_reduce = all_reduce,
                                                      .all_gather = all_gather,
                                                      .broadcast = broadcast,
                                                      .leave = leave};

/* ---- Creation ---- */

static sluice_status *initialise(shared_memory *memory, uint32_t ranks, size_t slot_bytes, size_t total) {
  memory->ranks = ranks;
  memory->slot_bytes = slot_bytes;
  memory->total_bytes = total;
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  int error = 0;
  for (uint32_t r = 0; r < ranks && !error; r++) error = pthread_mutex_init(&memory->rank[r].alive, &attributes);
  pthread_mutexattr_destroy(&attributes);
  if (error) return sluice_error(SLUICE_IO, "a mutex shared by processes: %s", strerror(error));
  memory->magic = MAGIC;
  return NULL;
}

sluice_status *sluice_shared_create(uint32_t ranks, size_t message_bytes, int *out_descriptor) {
  *out_descriptor = -1;
  if (ranks < 1 || ranks > SLUICE_MOST_RANKS)
    return sluice_error(SLUICE_INVALID, "a group has 1 to %d ranks; asked for %u", SLUICE_MOST_RANKS, ranks);
  if (message_bytes < 1 || message_bytes > LARGEST_MESSAGE)
    return sluice_error(SLUICE_INVALID, "ranks exchange 1 to %zu bytes at a time; asked for %zu", LARGEST_MESSAGE,
                        message_bytes);
  size_t slot_bytes = (message_bytes + 63) / 64 * 64, total = slots_at() + 2 * ranks * slot_bytes;
  int descriptor = memfd_create("sluice ranks", 0);
  if (descriptor < 0) return sluice_error(SLUICE_IO, "memory shared by ranks: %s", strerror(errno));
  void *memory = MAP_FAILED;
  if (ftruncate(descriptor, (off_t)total) == 0)
    memory = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  sluice_status *status = memory == MAP_FAILED ? sluice_error(SLUICE_OUT_OF_MEMORY, "%s of memory shared by ranks: %s",
                                                              sluice_describe_bytes(total).text, strerror(errno))
                                               : initialise(memory, ranks, slot_bytes, total);
  if (memory != MAP_FAILED) munmap(memory, total);
  if (status)
    close(descriptor);
  else
    *out_descriptor = descriptor;
  return status;
}

static sluice_status *map(int descriptor, shared_memory **out_memory) {
  struct stat info;
  if (fstat(descriptor, &info) != 0)
    return sluice_error(SLUICE_IO, "memory shared by ranks, descriptor %d: %s", descriptor, strerror(errno));
  size_t bytes = info.st_size > 0 ? (size_t)info.st_size : 0;
  shared_memory *memory = MAP_FAILED;
  if (bytes >= slots_at()) memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (memory != MAP_FAILED && memory->magic == MAGIC && memory->total_bytes == bytes) {
    *out_memory = memory;
    return NULL;
  }
  if (memory != MAP_FAILED) munmap(memory, bytes);
  return sluice_error(SLUICE_INVALID, "descriptor %d is not memory shared by the ranks of this version of sluice",
                      descriptor);
}

static sluice_status *take_rank(shared_memory *memory, uint32_t rank) {
  if (rank >= memory->ranks)
    return sluice_error(SLUICE_INVALID, "rank %u of a group of %u: ranks are 0 to %u", rank, memory->ranks,
                        memory->ranks - 1);
  rank_state *own = &memory->rank[rank];
  int error = atomic_load(&own->joined) ? EBUSY : pthread_mutex_trylock(&own->alive);
  if (error) return sluice_error(SLUICE_INVALID, "rank %u joined already: each process needs a rank of its own", rank);
  atomic_store(&own->joined, true);
  return NULL;
}

sluice_status *sluice_shared_join(int descriptor, uint32_t rank, double deadline, sluice_group **out_group) {
  *out_group = NULL;
  shared_group *s = sluice_allocate(sizeof *s);
  if (!s) return sluice_out_of_memory();
  sluice_status *status = map(descriptor, &s->memory);
  if (!status) {
    s->total_bytes = s->memory->total_bytes;
    status = take_rank(s->memory, rank);
    if (status) munmap(s->memory, s->total_bytes);
  }
  if (status) {
    sluice_release(s);
    return status;
  }
  s->group = (sluice_group){.collectives = &shared_collectives,
                            .rank = rank,
                            .ranks = s->memory->ranks,
                            .deadline = deadline > 0 ? deadline : SLUICE_GROUP_DEADLINE};
  s->slots = (char *)s->memory + slots_at();
  *out_group = &s->group;
  return NULL;
}
