/* Ranks that meet over TCP: strangers, secrets, numbers, processes that end; what must agree before the first step. */

#include "runtime/model.h"
#include "runtime/ranks/hmac.h"
#include "runtime/ranks/identity.h"
#include "runtime/ranks/join.h"
#include "runtime/ranks/sockets.h"
#include "runtime/ranks/tcp.h"
#include "sluice/memory.h"
#include "support/free_port.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SECRET "a secret of more than sixteen"

typedef struct guest { /* one process */
  sluice_meeting meeting;
  const char *bundle; /* its identity; NULL: it leaves after meeting */
  pid_t process;
  int pipe;
  char line[300]; /* what went wrong */
} guest;

static void be_guest(guest *g, int to) {
  sluice_group *group = NULL;
  char line[300] = "";
  sluice_status *status = sluice_tcp_join(&g->meeting, 20, &group);
  if (!status && g->bundle) {
    sluice_identity identity = {0};
    sluice_identity_add(&identity, "sluice", "0.1.0");
    sluice_identity_add(&identity, "bundle", g->bundle);
    status = sluice_identity_agree(group, &identity);
  }
  if (status) snprintf(line, sizeof line, "%s", sluice_status_message(status));
  sluice_status_free(status);
  if (write(to, line, sizeof line) != sizeof line) _exit(2);
  if (group) group->collectives->leave(group);
  _exit(0);
}

static void start(guest *g) {
  int ends[2];
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  g->process = fork();
  assert_true(g->process >= 0);
  if (g->process == 0) be_guest(g, ends[1]);
  close(ends[1]);
  g->pipe = ends[0];
}

static void finish(guest *g) {
  size_t got = 0;
  ssize_t part;
  int status;
  while ((part = read(g->pipe, g->line + got, sizeof g->line - got)) > 0) got += (size_t)part;
  close(g->pipe);
  assert_int_equal(waitpid(g->process, &status, 0), g->process);
}

static void prepare(guest *guests, uint32_t count, uint32_t ranks, const char *host, double deadline) {
  const uint16_t port = free_port();
  for (uint32_t i = 0; i < count; i++) {
    guests[i] = (guest){.meeting = {.host = host,
                                    .port = port,
                                    .rank = i,
                                    .ranks = ranks,
                                    .secret = SECRET,
                                    .secret_bytes = sizeof SECRET - 1,
                                    .deadline = deadline},
                        .bundle = "1a2b3c"};
  }
}

static void run(guest *guests, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) start(&guests[i]);
  for (uint32_t i = 0; i < count; i++) finish(&guests[i]);
}

static void ranks_meet_in_any_order(void **state) {
  (void)state;
  static guest guests[5];
  for (int secret = 0; secret < 2; secret++) {
    prepare(guests, 5, 5, secret ? "localhost" : "127.0.0.1", 60);
    for (uint32_t i = 0; i < 5; i++)
      if (!secret) guests[i].meeting.secret_bytes = 0;
    for (uint32_t i = 5; i-- > 0;) {
      start(&guests[i]);
      usleep(30000);
    }
    for (uint32_t i = 0; i < 5; i++) finish(&guests[i]);
    for (uint32_t i = 0; i < 5; i++) assert_string_equal(guests[i].line, "");
  }
}

static void what_differs_is_named_with_its_ranks(void **state) {
  (void)state;
  static guest guests[4];
  prepare(guests, 4, 4, "127.0.0.1", 60);
  guests[1].bundle = "ffee";
  guests[3].bundle = "ffee";
  run(guests, 4);
  for (uint32_t i = 0; i < 4; i++)
    assert_string_equal(guests[i].line, "bundle of rank 1, 3 differs from rank 0's (ffee, rank 0: 1a2b3c): start all "
                                        "ranks with the same files and options");
}

static void another_number_of_ranks_is_named(void **state) {
  (void)state;
  static guest guests[3];
  prepare(guests, 3, 3, "127.0.0.1", 60);
  guests[2].meeting.ranks = 4;
  run(guests, 3);
  for (uint32_t i = 0; i < 3; i++)
    assert_non_null(strstr(guests[i].line, "rank 2 was told of 4 ranks, rank 0 of 3: start all with the same number"));
}

static void two_processes_of_one_rank_are_refused(void **state) {
  (void)state;
  static guest guests[3];
  prepare(guests, 3, 4, "127.0.0.1", 60);
  guests[2].meeting.rank = 1;
  run(guests, 3);
  for (uint32_t i = 0; i < 3; i++)
    assert_non_null(strstr(guests[i].line, "two processes are rank 1: the second one's address is 127.0.0.1:"));
}

static void a_rank_that_does_not_come_is_named(void **state) {
  (void)state;
  static guest guests[3];
  prepare(guests, 2, 4, "127.0.0.1", 1);
  run(guests, 2);
  for (uint32_t i = 0; i < 2; i++) assert_string_equal(guests[i].line, "rank 2, 3 did not come to rank 0 within 1 s");
}

static void another_secret_is_of_no_use(void **state) {
  (void)state;
  static guest guests[2];
  prepare(guests, 2, 2, "127.0.0.1", 2);
  guests[1].meeting.secret = "another secret, as long";
  guests[1].meeting.secret_bytes = 23;
  run(guests, 2);
  assert_non_null(strstr(guests[1].line, "rank 0 has another secret: start all ranks with the same"));
  assert_non_null(strstr(guests[0].line, "rank 1 did not come to rank 0 within 2 s; 127.0.0.1:"));
  assert_non_null(strstr(guests[0].line, "was turned away: "));
}

static void without_a_secret_only_this_machine_meets(void **state) {
  (void)state;
  static guest guests[2];
  prepare(guests, 2, 2, "192.0.2.1", 5);
  for (uint32_t i = 0; i < 2; i++) guests[i].meeting.secret_bytes = 0;
  run(guests, 2);
  for (uint32_t i = 0; i < 2; i++)
    assert_non_null(strstr(guests[i].line, "is not this machine's loopback address: ranks of several machines need a "
                                           "secret (--secret FILE)"));
}

/* A rank that was killed while it waited for the others. */
static void a_rank_that_ends_meanwhile_is_named(void **state) {
  (void)state;
  static guest guests[3];
  prepare(guests, 3, 4, "127.0.0.1", 60);
  for (uint32_t i = 0; i < 3; i++) start(&guests[i]);
  usleep(700000);
  kill(guests[2].process, SIGKILL);
  for (uint32_t i = 0; i < 3; i++) finish(&guests[i]);
  for (uint32_t i = 0; i < 2; i++) assert_non_null(strstr(guests[i].line, "rank 2 ended while the ranks met"));
}

/* Strangers at rank 0's door, before the ranks come: silent ones, talkative ones, and ones that leave. */
static void strangers_do_not_matter(void **state) {
  (void)state;
  static guest guests[3];
  int strangers[40];
  char nonsense[200];
  sluice_endpoint at[SLUICE_MOST_ENDPOINTS];
  size_t count;
  prepare(guests, 3, 3, "127.0.0.1", 60);
  memset(nonsense, 'x', sizeof nonsense);
  start(&guests[0]);
  assert_null(sluice_endpoints_find("127.0.0.1", guests[0].meeting.port, at, &count));
  for (int i = 0; i < 40; i++) {
    sluice_status *status;
    while ((status = sluice_socket_connect(&at[0], sluice_seconds() + 5, &strangers[i]))) {
      sluice_status_free(status); /* rank 0 does not listen yet */
      usleep(20000);
    }
    if (i % 3 == 1)
      sluice_status_free(sluice_socket_send(strangers[i], nonsense, sizeof nonsense, sluice_seconds() + 1));
    if (i % 3 == 2) close(strangers[i]);
  }
  start(&guests[1]);
  start(&guests[2]);
  for (int i = 0; i < 3; i++) finish(&guests[i]);
  for (int i = 0; i < 3; i++) assert_string_equal(guests[i].line, "");
  for (int i = 0; i < 40; i++)
    if (i % 3 != 2) close(strangers[i]);
}

/* What answers at rank 0's address is something else. */
static void another_service_is_recognised(void **state) {
  (void)state;
  static guest guests[2];
  static const char other[200] = "HTTP/1.1 400 Bad Request\r\n";
  int listening;
  sluice_endpoint at[SLUICE_MOST_ENDPOINTS];
  size_t count;
  prepare(guests, 2, 2, "127.0.0.1", 20);
  assert_null(sluice_endpoints_find("127.0.0.1", guests[0].meeting.port, at, &count));
  assert_null(sluice_socket_listen(&at[0], 0, &listening));
  start(&guests[1]);
  assert_true(sluice_socket_wait(listening, 1 /* POLLIN */, sluice_seconds() + 20));
  const int visitor = sluice_socket_accept(listening);
  assert_null(sluice_socket_send(visitor, other, sizeof other, sluice_seconds() + 5));
  finish(&guests[1]);
  assert_non_null(strstr(guests[1].line, "what answers there is no rank of sluice"));
  start(&guests[0]);
  finish(&guests[0]);
  assert_non_null(strstr(guests[0].line, "Address already in use"));
  close(visitor);
  close(listening);
}

static void secrets_are_files_of_their_owner(void **state) {
  (void)state;
  char path[] = "/tmp/sluice-secret-XXXXXX";
  void *secret;
  size_t bytes;
  const int file = mkstemp(path);
  assert_true(file >= 0);
  assert_int_equal(write(file, "0123456789abcdef\n", 17), 17);
  assert_null(sluice_secret_read(path, &secret, &bytes));
  assert_int_equal(bytes, 16);
  sluice_release(secret);
  assert_int_equal(fchmod(file, 0644), 0);
  sluice_status *status = sluice_secret_read(path, &secret, &bytes);
  assert_non_null(strstr(sluice_status_message(status), "others may read this secret (mode 644): chmod 600 it"));
  sluice_status_free(status);
  assert_int_equal(fchmod(file, 0600) | ftruncate(file, 10), 0);
  status = sluice_secret_read(path, &secret, &bytes);
  assert_non_null(strstr(sluice_status_message(status), "a secret of 10 bytes: at least 16 are needed"));
  sluice_status_free(status);
  close(file);
  unlink(path);
}

/* RFC 4231, cases 2 and 6 (a key that is longer than a block). */
static void hmac_is_the_standard_one(void **state) {
  (void)state;
  static const uint8_t two[32] = {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24,
                                  0x26, 0x08, 0x95, 0x75, 0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27,
                                  0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43};
  static const uint8_t six[32] = {0x60, 0xe4, 0x31, 0x59, 0x1e, 0xe0, 0xb6, 0x7f, 0x0d, 0x8a, 0x26,
                                  0xaa, 0xcb, 0xf5, 0xb7, 0x7f, 0x8e, 0x0b, 0xc6, 0x21, 0x37, 0x28,
                                  0xc5, 0x14, 0x05, 0x46, 0x04, 0x0f, 0x0e, 0xe3, 0x7f, 0x54};
  static const char text[] = "Test Using Larger Than Block-Size Key - Hash Key First";
  uint8_t key[131], digest[32];
  memset(key, 0xaa, sizeof key);
  sluice_hmac("Jefe", 4, "what do ya want for nothing?", 28, digest);
  assert_true(sluice_hmac_equal(digest, two));
  sluice_hmac(key, sizeof key, text, sizeof text - 1, digest);
  assert_true(sluice_hmac_equal(digest, six));
  digest[31] ^= 1;
  assert_false(sluice_hmac_equal(digest, six));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ranks_meet_in_any_order),
      cmocka_unit_test(what_differs_is_named_with_its_ranks),
      cmocka_unit_test(another_number_of_ranks_is_named),
      cmocka_unit_test(two_processes_of_one_rank_are_refused),
      cmocka_unit_test(a_rank_that_does_not_come_is_named),
      cmocka_unit_test(another_secret_is_of_no_use),
      cmocka_unit_test(without_a_secret_only_this_machine_meets),
      cmocka_unit_test(a_rank_that_ends_meanwhile_is_named),
      cmocka_unit_test(strangers_do_not_matter),
      cmocka_unit_test(another_service_is_recognised),
      cmocka_unit_test(secrets_are_files_of_their_owner),
      cmocka_unit_test(hmac_is_the_standard_one),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
