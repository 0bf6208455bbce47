/* Which rank a process is, by the variables of launchers; and what contradicts itself. */

#include "runtime/ranks/find.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* "NAME=value" pairs, separated by spaces. */
static const char *look_up(void *user, const char *name) {
  static char values[64][256]; /* they stay valid, as those of the environment do */
  static unsigned used;
  char *value = values[used++ % 64];
  const size_t length = strlen(name);
  for (const char *at = user; at && *at; at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL) {
    if (strncmp(at, name, length) != 0 || at[length] != '=') continue;
    const size_t count = strcspn(at + length + 1, " ");
    memcpy(value, at + length + 1, count);
    value[count] = 0;
    return value;
  }
  return NULL;
}

static void assert_found(const char *variables, const char *leader, const char *by, uint32_t rank, uint32_t ranks,
                         uint32_t local_rank, const char *host, unsigned port) {
  sluice_rank_place place;
  sluice_status *status = sluice_rank_find(look_up, (char *)(uintptr_t)variables, leader, &place);
  if (status) fail_msg("%s: %s", variables, sluice_status_message(status));
  if (by)
    assert_string_equal(place.by, by);
  else
    assert_null(place.by);
  assert_int_equal(place.rank, rank);
  assert_int_equal(place.ranks, ranks);
  assert_int_equal(place.local_rank, local_rank);
  assert_string_equal(place.host, host);
  if (port)
    assert_int_equal(place.port, port);
  else if (place.host[0])
    assert_in_range(place.port, 20000, 29999);
}

static void assert_refused(const char *variables, const char *leader, const char *message) {
  sluice_rank_place place;
  sluice_status *status = sluice_rank_find(look_up, (char *)(uintptr_t)variables, leader, &place);
  if (!status) fail_msg("accepted: %s", variables);
  if (!strstr(sluice_status_message(status), message)) fail_msg("%s", sluice_status_message(status));
  sluice_status_free(status);
}

#define TORCHRUN "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=node1 MASTER_PORT=29400"
#define OPEN_MPI "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=3"
#define SLURM                                                                                                          \
  "SLURM_PROCID=9 SLURM_NTASKS=16 SLURM_LOCALID=1 SLURM_STEP_ID=0 SLURM_JOB_ID=77 SLURM_STEP_NODELIST=n[003-004,9]"
#define LWS "LWS_WORKER_INDEX=1 LWS_GROUP_SIZE=2 LWS_LEADER_ADDRESS=m3-0.m3.default"

static void launchers_say_who_is_where(void **state) {
  (void)state;
  assert_found("", NULL, NULL, 0, 1, 0, "", 0);
  assert_found("HOME=/root RANKS=3", NULL, NULL, 0, 1, 0, "", 0);
  assert_found(TORCHRUN, NULL, "torchrun", 5, 8, 1, "node1", 29400);
  assert_found(TORCHRUN " TORCHELASTIC_USE_AGENT_STORE=True", NULL, "torchrun", 5, 8, 1, "node1", 29401);
  assert_found(TORCHRUN " TORCHELASTIC_USE_AGENT_STORE=False", NULL, "torchrun", 5, 8, 1, "node1", 29400);
  assert_found("RANK=0 WORLD_SIZE=1", NULL, "torchrun", 0, 1, 0, "", 0);
  assert_found(SLURM, NULL, "Slurm", 9, 16, 1, "n003", 0);
  assert_found(SLURM " MASTER_ADDR=other MASTER_PORT=7", NULL, "Slurm", 9, 16, 1, "other", 7);
  assert_found(OPEN_MPI " OMPI_COMM_WORLD_LOCAL_SIZE=4 PMIX_NAMESPACE=a@1 PMIX_RANK=3", NULL, "Open MPI", 3, 4, 3,
               "127.0.0.1", 0);
  assert_found("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2", NULL, "PMI", 1, 2, 1, "127.0.0.1", 0);
  assert_found(LWS, NULL, "LeaderWorkerSet", 1, 2, 0, "m3-0.m3.default", 29500);
}

static void the_user_says_where_rank_0_is(void **state) {
  (void)state;
  assert_found(OPEN_MPI, "10.0.0.7:4000", "Open MPI", 3, 4, 3, "10.0.0.7", 4000);
  assert_found(TORCHRUN, "[fe80::1]:4000", "torchrun", 5, 8, 1, "fe80::1", 4000);
  assert_refused(OPEN_MPI, "10.0.0.7", "\"10.0.0.7\" is not HOST:PORT");
  assert_refused(OPEN_MPI, "host:0", "is not HOST:PORT");
  assert_refused(OPEN_MPI, "host:70000", "is not HOST:PORT");
  assert_refused(OPEN_MPI, ":4000", "is not the name of a host");
  assert_refused("", "host:4000", "no variable says which rank this is");
}

static void one_launcher_may_start_another(void **state) {
  (void)state;
  assert_found(TORCHRUN " SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_STEP_ID=0", NULL, "torchrun", 5, 8, 1,
               "node1", 29400);
  assert_found(TORCHRUN " " LWS, NULL, "torchrun", 5, 8, 1, "node1", 29400);
  /* a batch script is no task */
  assert_found("SLURM_PROCID=0 SLURM_NTASKS=16 SLURM_LOCALID=0 SLURM_JOB_ID=4", NULL, NULL, 0, 1, 0, "", 0);
  /* torchrun as a task: PMIx speaks of the task */
  assert_found(TORCHRUN " PMIX_RANK=1", NULL, "torchrun", 5, 8, 1, "node1", 29400);
}

static void contradictions_are_refused(void **state) {
  (void)state;
  assert_refused("RANK=5 LOCAL_RANK=1", NULL, "RANK is set, but WORLD_SIZE is not: torchrun sets both");
  assert_refused("WORLD_SIZE=8", NULL, "WORLD_SIZE is set, but RANK is not");
  assert_refused("RANK=8 WORLD_SIZE=8", NULL, "RANK is 8 and WORLD_SIZE 8: ranks count from 0");
  assert_refused("RANK=x WORLD_SIZE=8", NULL, "the variable RANK is \"x\"");
  assert_refused("RANK=-1 WORLD_SIZE=8", NULL, "the variable RANK is \"-1\"");
  assert_refused("RANK=1 WORLD_SIZE=99999999999999999999", NULL, "WORLD_SIZE is \"99999999999999999999\"");
  assert_refused("RANK=1 WORLD_SIZE=8 LOCAL_RANK=2", NULL, "LOCAL_RANK is 2 and RANK 1");
  assert_refused("RANK=1 WORLD_SIZE=80 MASTER_ADDR=a", NULL, "80 ranks (WORLD_SIZE): a group has at most 64");
  assert_refused("RANK=1 WORLD_SIZE=8", NULL, "but not where rank 0 is: set MASTER_ADDR and MASTER_PORT");
  assert_refused("RANK=1 WORLD_SIZE=8 MASTER_ADDR=a MASTER_PORT=x", NULL, "MASTER_PORT is \"x\"");
  assert_refused(TORCHRUN " OMPI_COMM_WORLD_RANK=4 OMPI_COMM_WORLD_SIZE=8", NULL,
                 "torchrun says rank 5 of 8 (RANK, WORLD_SIZE), Open MPI rank 4 of 8");
  assert_refused("RANK=0 WORLD_SIZE=1 " SLURM, NULL,
                 "torchrun says rank 0 of 1 (RANK, WORLD_SIZE), Slurm rank 9 of 16");
  assert_refused(OPEN_MPI " OMPI_COMM_WORLD_LOCAL_SIZE=4 PMIX_RANK=2", NULL,
                 "PMIX_RANK is 2, and OMPI_COMM_WORLD_RANK 3");
  assert_refused(OPEN_MPI " OMPI_COMM_WORLD_LOCAL_SIZE=2", NULL, "Open MPI says rank 3 of 4, but not where rank 0 is");
}

static void the_first_host_of_a_list(void **state) {
  (void)state;
  static const char *const lists[][2] = {
      {"node1", "node1"},
      {"node1,node2", "node1"},
      {"node[003-006,9],x", "node003"},
      {"node[7,9]", "node7"},
      {"a-b[1-2]-x,c", "a-b1-x"},
      {"r[2-3]n[08-10].site", "r2n08.site"},
      {"gpu[1-2]ib,gpu9", "gpu1ib"},
  };
  char host[64];
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    assert_true(sluice_first_host(lists[i][0], host, sizeof host));
    assert_string_equal(host, lists[i][1]);
  }
  assert_false(sluice_first_host("", host, sizeof host));
  assert_false(sluice_first_host(",b", host, sizeof host));
  assert_false(sluice_first_host("node[1-2", host, sizeof host));
  assert_false(sluice_first_host("a-name-that-is-too-long", host, 8));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(launchers_say_who_is_where),     cmocka_unit_test(the_user_says_where_rank_0_is),
      cmocka_unit_test(one_launcher_may_start_another), cmocka_unit_test(contradictions_are_refused),
      cmocka_unit_test(the_first_host_of_a_list),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
