/* Collectives between real processes, over every table: results, order of additions, and ranks that end, hang, leave or
 * differ. */

#include "runtime/collectives.h"
#include "runtime/model.h"
#include "runtime/ranks/tcp.h"
#include "support/free_port.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MESSAGE 256 /* small, so that calls take several exchanges */
#define MOST_VALUES 700

/* What a rank does in its process; its return value becomes the exit code, and `line` reaches the parent. */
typedef struct rank_report {
  char line[240];
  float values[MOST_VALUES];
} rank_report;
typedef int rank_body(sluice_group *group, rank_report *report);

typedef enum table_kind { SHARED_MEMORY, TCP, TABLES } table_kind;

typedef struct cluster {
  uint32_t ranks;
  pid_t process[8];
  int pipe[8];
  rank_report report[8];
  int status[8];
} cluster;

static void write_all(int to, const void *data, size_t bytes) {
  for (const char *at = data; bytes;) {
    ssize_t written = write(to, at, bytes);
    if (written <= 0) _exit(90);
    at += written;
    bytes -= (size_t)written;
  }
}

/* What the processes of a group need to know to join it. */
typedef struct ticket {
  table_kind table;
  uint32_t ranks;
  double deadline;
  int descriptor; /* of shared memory */
  uint16_t port;
} ticket;

static sluice_status *join(const ticket *t, uint32_t rank, sluice_group **out_group) {
  if (t->table == SHARED_MEMORY) return sluice_shared_join(t->descriptor, rank, t->deadline, out_group);
  const sluice_meeting meeting = {.host = "127.0.0.1",
                                  .port = t->port,
                                  .rank = rank,
                                  .ranks = t->ranks,
                                  .secret = "sixteen letters.",
                                  .secret_bytes = 16,
                                  .deadline = 120};
  return sluice_tcp_join(&meeting, t->deadline, out_group);
}

static void be_rank(const ticket *t, uint32_t rank, rank_body *body, int to) {
  static rank_report report;
  sluice_group *group = NULL;
  sluice_status *status = join(t, rank, &group);
  int code = 91;
  if (!status)
    code = body(group, &report);
  else
    snprintf(report.line, sizeof report.line, "%s", sluice_status_message(status));
  sluice_status_free(status);
  write_all(to, &report, sizeof report);
  if (group) group->collectives->leave(group);
  _exit(code);
}

static void start(cluster *c, table_kind table, uint32_t ranks, double deadline, rank_body *body) {
  ticket t = {.table = table, .ranks = ranks, .deadline = deadline, .descriptor = -1};
  if (table == SHARED_MEMORY)
    assert_null(sluice_shared_create(ranks, MESSAGE, &t.descriptor));
  else
    t.port = free_port();
  memset(c, 0, sizeof *c);
  c->ranks = ranks;
  for (uint32_t r = 0; r < ranks; r++) {
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    c->process[r] = fork();
    assert_true(c->process[r] >= 0);
    if (c->process[r] == 0) be_rank(&t, r, body, ends[1]);
    close(ends[1]);
    c->pipe[r] = ends[0];
  }
  if (t.descriptor >= 0) close(t.descriptor);
}

/* Ranks are not waited for before all have said what they have to say: one that was killed stays a zombie meanwhile. */
static void finish(cluster *c) {
  for (uint32_t r = 0; r < c->ranks; r++) {
    size_t got = 0;
    ssize_t part;
    while ((part = read(c->pipe[r], (char *)&c->report[r] + got, sizeof c->report[r] - got)) > 0) got += (size_t)part;
    close(c->pipe[r]);
  }
  for (uint32_t r = 0; r < c->ranks; r++) assert_int_equal(waitpid(c->process[r], &c->status[r], 0), c->process[r]);
}

static int failed(sluice_status *status, rank_report *report) {
  if (!status) return 0;
  snprintf(report->line, sizeof report->line, "%s", sluice_status_message(status));
  sluice_status_free(status);
  return 1;
}

/* ---- Results ---- */

/* Values whose sum depends on the order of additions. */
static float value_of(uint32_t rank, size_t i) {
  uint32_t bits = (uint32_t)(i * 2654435761u) ^ (rank + 1) * 2246822519u;
  return (float)(int32_t)bits * (rank % 2 ? 1e-9F : 1e3F);
}

static int reduce_and_report(sluice_group *group, rank_report *report) {
  for (uint64_t round = 0; round < 40; round++) {
    sluice_group_step(group, round);
    if (round % 8 == group->rank) usleep(500); /* another rank comes last each time */
    for (size_t i = 0; i < MOST_VALUES; i++) report->values[i] = value_of(group->rank, i);
    size_t count = round == 39 ? MOST_VALUES : (size_t)round * 17 % MOST_VALUES;
    if (failed(group->collectives->all_reduce(group, report->values, count), report)) return 1;
    for (size_t i = count; i < MOST_VALUES; i++)
      if (report->values[i] != value_of(group->rank, i)) return 2;
  }
  return 0;
}

static void sums_add_in_the_order_of_ranks(void **state) {
  for (uint32_t ranks = 1; ranks <= 8; ranks *= 2) {
    static cluster c;
    start(&c, *(table_kind *)*state, ranks, 20, reduce_and_report);
    finish(&c);
    for (uint32_t r = 0; r < ranks; r++) {
      assert_string_equal(c.report[r].line, "");
      assert_int_equal(c.status[r], 0);
      for (size_t i = 0; i < MOST_VALUES; i++) {
        float sum = value_of(0, i);
        for (uint32_t other = 1; other < ranks; other++) sum += value_of(other, i);
        assert_memory_equal(&sum, &c.report[r].values[i], sizeof sum);
      }
    }
  }
}

/* Sums of many values: over TCP each rank adds a share of them, and the longest goes in parts. */
static int reduce_many(sluice_group *group, rank_report *report) {
  static const size_t counts[] = {8192, 8193, 50001, (1 << 20) + 5};
  static float values[(1 << 20) + 5];
  for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
    if (counts[c] > 50001 && strcmp(group->collectives->name, "TCP") != 0) continue; /* parts are small there */
    for (size_t i = 0; i < counts[c]; i++) values[i] = value_of(group->rank, i);
    if (failed(group->collectives->all_reduce(group, values, counts[c]), report)) return 1;
    for (size_t i = 0; i < counts[c]; i++) {
      float sum = value_of(0, i);
      for (uint32_t other = 1; other < group->ranks; other++) sum += value_of(other, i);
      if (memcmp(&sum, &values[i], sizeof sum) != 0) return 2;
    }
  }
  return 0;
}

static void long_sums_are_the_same(void **state) {
  static cluster c;
  start(&c, *(table_kind *)*state, 3, 20, reduce_many);
  finish(&c);
  for (uint32_t r = 0; r < 3; r++) assert_int_equal(c.status[r], 0);
}

static int gather_and_broadcast(sluice_group *group, rank_report *report) {
  static const size_t sizes[] = {0, 1, 4, 255, 256, 257, 600};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    char mine[600], all[8 * 600 + 1], sent[600];
    const size_t bytes = sizes[s];
    memset(mine, 'a' + (int)group->rank, sizeof mine);
    memset(all, '#', sizeof all);
    memset(sent, group->rank ? '?' : '!', sizeof sent);
    if (failed(group->collectives->all_gather(group, mine, bytes, all), report)) return 1;
    for (uint32_t r = 0; r < group->ranks; r++)
      for (size_t i = 0; i < bytes; i++)
        if (all[r * bytes + i] != 'a' + (char)r) return 2;
    if (all[group->ranks * bytes] != '#') return 3;
    if (failed(group->collectives->broadcast(group, sent, bytes), report)) return 1;
    for (size_t i = 0; i < sizeof sent; i++)
      if (sent[i] != (i < bytes || !group->rank ? '!' : '?')) return 4;
  }
  return 0;
}

static void bytes_are_gathered_and_broadcast(void **state) {
  static cluster c;
  for (uint32_t ranks = 1; ranks <= 5; ranks += 2) {
    start(&c, *(table_kind *)*state, ranks, 20, gather_and_broadcast);
    finish(&c);
    for (uint32_t r = 0; r < ranks; r++) assert_int_equal(c.status[r], 0);
  }
}

/* ---- Faults ---- */

/* All ranks but `except` exit with 1 and `line`. */
static void assert_all_say(const cluster *c, uint32_t except, const char *line) {
  for (uint32_t r = 0; r < c->ranks; r++) {
    if (r == except) continue;
    assert_string_equal(c->report[r].line, line);
    assert_true(WIFEXITED(c->status[r]) && WEXITSTATUS(c->status[r]) == 1);
  }
}

/* Steps without end; in step 5 rank 2 does what the tests are about. */
static int reduce_until(sluice_group *group, rank_report *report, int (*in_step_5)(sluice_group *, rank_report *)) {
  for (uint64_t step = 1;; step++) {
    sluice_group_step(group, step);
    if (step == 5 && group->rank == 2) {
      int code = in_step_5(group, report);
      if (code) return code;
    }
    if (failed(group->collectives->all_reduce(group, report->values, 100), report)) return 1;
  }
}

static int be_killed(sluice_group *group, rank_report *report) {
  (void)group, (void)report;
  raise(SIGKILL);
  return 92;
}
static int kill_rank_2(sluice_group *group, rank_report *report) {
  return reduce_until(group, report, be_killed);
}

static void a_killed_rank_is_found_at_once(void **state) {
  static cluster c;
  double begun = sluice_seconds();
  start(&c, *(table_kind *)*state, 4, SLUICE_GROUP_DEADLINE, kill_rank_2);
  finish(&c);
  assert_true(sluice_seconds() - begun < SLUICE_GROUP_DEADLINE / 2); /* it does not take the deadline */
  assert_true(WIFSIGNALED(c.status[2]));
  assert_all_say(&c, 2, "rank 2 ended in step 5, while others waited for it in all_reduce");
}

static int hang(sluice_group *group, rank_report *report) {
  (void)group, (void)report;
  raise(SIGSTOP);
  return 0;
}
static int hang_rank_2(sluice_group *group, rank_report *report) {
  return reduce_until(group, report, hang);
}

/* Both tables at once, since the deadline passes. It is long enough for ranks of a loaded machine that do not hang. */
static void a_stopped_rank_is_found_and_learns_of_it(void **state) {
  (void)state;
  static cluster clusters[TABLES];
  siginfo_t info;
  for (table_kind t = SHARED_MEMORY; t < TABLES; t++) start(&clusters[t], t, 3, 8.0, hang_rank_2);
  for (table_kind t = SHARED_MEMORY; t < TABLES; t++) {
    cluster *c = &clusters[t];
    for (int r = 0; r < 2; r++) assert_int_equal(waitid(P_PID, (id_t)c->process[r], &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(kill(c->process[2], SIGCONT), 0);
    finish(c);
    assert_all_say(c, 3, "rank 2 hangs: in step 5 others waited 8 s for it in all_reduce");
  }
}

static int quit(sluice_group *group, rank_report *report) {
  (void)group, (void)report;
  return 7;
}
static int rank_2_leaves(sluice_group *group, rank_report *report) {
  return reduce_until(group, report, quit);
}

static void a_rank_that_leaves_early_is_named(void **state) {
  static cluster c;
  start(&c, *(table_kind *)*state, 4, SLUICE_GROUP_DEADLINE, rank_2_leaves);
  finish(&c);
  assert_int_equal(WEXITSTATUS(c.status[2]), 7);
  assert_all_say(&c, 2, "rank 2 left before step 5 was done; others wait for it in all_reduce");
}

static int call_another(sluice_group *group, rank_report *report) {
  return failed(group->collectives->all_reduce(group, report->values, 99), report);
}
static int rank_2_differs(sluice_group *group, rank_report *report) {
  return reduce_until(group, report, call_another);
}

static void a_rank_out_of_step_is_named(void **state) {
  static cluster c;
  start(&c, *(table_kind *)*state, 4, SLUICE_GROUP_DEADLINE, rank_2_differs);
  finish(&c);
  assert_all_say(&c, 4,
                 "rank 2 is out of step: it does all_reduce of 396 bytes in step 5, rank 0 all_reduce of 400 in "
                 "step 5");
}

static void a_rank_that_never_joins_is_named(void **state) {
  (void)state;
  int descriptor = -1;
  sluice_group *group = NULL;
  float value = 1;
  assert_null(sluice_shared_create(2, MESSAGE, &descriptor));
  assert_null(sluice_shared_join(descriptor, 0, 0.2, &group));
  sluice_group_step(group, 1);
  sluice_status *status = group->collectives->all_reduce(group, &value, 1);
  assert_non_null(status);
  assert_string_equal(sluice_status_message(status),
                      "rank 1 never joined: in step 1 others waited 0.2 s for it in all_reduce");
  sluice_status_free(status);
  group->collectives->leave(group);
  close(descriptor);
}

static void assert_refused(sluice_status *status, const char *message) {
  assert_non_null(status);
  assert_non_null(strstr(sluice_status_message(status), message));
  sluice_status_free(status);
}

static void what_makes_no_group_is_refused(void **state) {
  (void)state;
  int descriptor = -1;
  sluice_group *group = NULL, *other = NULL;
  assert_refused(sluice_shared_create(0, MESSAGE, &descriptor), "1 to 64 ranks; asked for 0");
  assert_refused(sluice_shared_create(65, MESSAGE, &descriptor), "1 to 64 ranks; asked for 65");
  assert_refused(sluice_shared_create(2, 0, &descriptor), "asked for 0");
  assert_null(sluice_shared_create(2, MESSAGE, &descriptor));
  assert_refused(sluice_shared_join(descriptor, 2, 1, &group), "rank 2 of a group of 2: ranks are 0 to 1");
  assert_null(sluice_shared_join(descriptor, 1, 1, &group));
  assert_refused(sluice_shared_join(descriptor, 1, 1, &other), "rank 1 joined already");
  group->collectives->leave(group);
  close(descriptor);
  assert_refused(sluice_shared_join(descriptor, 0, 1, &group), "Bad file descriptor");
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  assert_refused(sluice_shared_join(null, 0, 1, &group), "is not memory shared by the ranks");
  if (null >= 0) close(null);
}

int main(void) {
  static table_kind tables[] = {SHARED_MEMORY, TCP};
#define OVER_BOTH(test)                                                                                                \
  {#test ": shared memory", test, NULL, NULL, &tables[SHARED_MEMORY]}, {                                               \
    #test ": TCP", test, NULL, NULL, &tables[TCP]                                                                      \
  }
  const struct CMUnitTest tests[] = {
      OVER_BOTH(sums_add_in_the_order_of_ranks),
      OVER_BOTH(bytes_are_gathered_and_broadcast),
      OVER_BOTH(long_sums_are_the_same),
      OVER_BOTH(a_killed_rank_is_found_at_once),
      OVER_BOTH(a_rank_that_leaves_early_is_named),
      OVER_BOTH(a_rank_out_of_step_is_named),
      cmocka_unit_test(a_stopped_rank_is_found_and_learns_of_it),
      cmocka_unit_test(a_rank_that_never_joins_is_named),
      cmocka_unit_test(what_makes_no_group_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
