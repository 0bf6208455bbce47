#include "runtime/ranks/handshake.h"

#include "runtime/ranks/hmac.h"
#include "runtime/ranks/sockets.h"
#include "sluice/runtime.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* As they travel, little-endian; a change of any of them is another number in MAGIC. */
#define MAGIC "sluice ranks 1\n"
typedef struct hello {
  char magic[16], version[16]; /* zero-padded */
  uint32_t rank, ranks, to, kind;
  uint8_t nonce[32];
} hello;
typedef struct answer {
  char magic[16], version[16];
  uint32_t rank, ranks;
  uint8_t nonce[32], proof[SLUICE_HMAC_BYTES];
} answer;
typedef struct closing {
  uint32_t port;
  uint8_t proof[SLUICE_HMAC_BYTES];
} closing;

/* Each side's proof is of a text of its own, so that neither can be sent back as the other's. */
static void prove(const sluice_meeting *meeting, const char side[8], const hello *h, const answer *a, uint32_t port,
                  uint8_t out_proof[SLUICE_HMAC_BYTES]) {
  uint8_t text[8 + sizeof *h + sizeof *a + sizeof port];
  memcpy(text, side, 8);
  memcpy(text + 8, h, sizeof *h);
  memcpy(text + 8 + sizeof *h, a, sizeof *a);
  memset(text + 8 + sizeof *h + offsetof(answer, proof), 0, SLUICE_HMAC_BYTES);
  memcpy(text + 8 + sizeof *h + sizeof *a, &port, sizeof port);
  sluice_hmac(meeting->secret, meeting->secret_bytes, text, sizeof text, out_proof);
}

static sluice_status *draw(uint8_t nonce[32]) {
  if (getrandom(nonce, 32, 0) == 32) return NULL;
  return sluice_error(SLUICE_IO, "random numbers from the kernel: %s", strerror(errno));
}

static void copy_padded(char to[16], const char *text) {
  for (size_t i = 0; i < 16; i++) to[i] = *text ? *text++ : 0;
}

/* What two ranks with the same secret must agree on. */
static sluice_status *compare(uint32_t one, const char one_version[16], uint32_t one_ranks, uint32_t other,
                              const char other_version[16], uint32_t other_ranks) {
  if (memcmp(one_version, other_version, 16) != 0)
    return sluice_error(SLUICE_INVALID, "rank %u is sluice %.15s, rank %u sluice %.15s: all ranks need the same", one,
                        one_version, other, other_version);
  if (one_ranks != other_ranks)
    return sluice_error(SLUICE_INVALID, "rank %u was told of %u ranks, rank %u of %u: start all with the same number",
                        one, one_ranks, other, other_ranks);
  return NULL;
}

sluice_status *sluice_handshake_call(const sluice_meeting *meeting, int descriptor, uint32_t rank,
                                     sluice_link_kind kind, uint16_t port, double until) {
  hello h = {.magic = MAGIC, .rank = meeting->rank, .ranks = meeting->ranks, .to = rank, .kind = kind};
  answer a;
  closing c = {.port = port};
  uint8_t expected[SLUICE_HMAC_BYTES];
  copy_padded(h.version, sluice_version());
  SLUICE_TRY(draw(h.nonce));
  SLUICE_TRY(sluice_socket_send(descriptor, &h, sizeof h, until));
  SLUICE_TRY(sluice_socket_receive(descriptor, &a, sizeof a, until));
  if (memcmp(a.magic, h.magic, sizeof a.magic) != 0)
    return sluice_error(SLUICE_INVALID, "what answers there is no rank of sluice, or one of another version");
  prove(meeting, "answers", &h, &a, 0, expected);
  if (!sluice_hmac_equal(a.proof, expected))
    return sluice_error(SLUICE_INVALID, "rank %u has another secret: start all ranks with the same", rank);
  prove(meeting, "callers", &h, &a, port, c.proof);
  SLUICE_TRY(sluice_socket_send(descriptor, &c, sizeof c, until));
  if (a.rank != rank) return sluice_error(SLUICE_INVALID, "rank %u answers there instead of rank %u", a.rank, rank);
  return compare(meeting->rank, h.version, h.ranks, rank, a.version, a.ranks);
}

sluice_status *sluice_handshake_answer(const sluice_meeting *meeting, int descriptor, double until,
                                       sluice_caller *out_caller, bool *out_proved) {
  hello h;
  answer a = {.magic = MAGIC, .rank = meeting->rank, .ranks = meeting->ranks};
  closing c;
  uint8_t expected[SLUICE_HMAC_BYTES];
  *out_proved = false;
  copy_padded(a.version, sluice_version());
  SLUICE_TRY(sluice_socket_receive(descriptor, &h, sizeof h, until));
  if (memcmp(h.magic, a.magic, sizeof h.magic) != 0) return sluice_error(SLUICE_INVALID, "it is no rank of sluice");
  SLUICE_TRY(draw(a.nonce));
  prove(meeting, "answers", &h, &a, 0, a.proof);
  SLUICE_TRY(sluice_socket_send(descriptor, &a, sizeof a, until));
  SLUICE_TRY(sluice_socket_receive(descriptor, &c, sizeof c, until));
  prove(meeting, "callers", &h, &a, c.port, expected);
  if (!sluice_hmac_equal(c.proof, expected)) return sluice_error(SLUICE_INVALID, "it has another secret");
  *out_proved = true;
  *out_caller = (sluice_caller){.rank = h.rank, .kind = h.kind ? SLUICE_LINK_DATA : SLUICE_LINK_CONTROL};
  SLUICE_TRY(compare(h.rank, h.version, h.ranks, meeting->rank, a.version, a.ranks));
  if (h.rank >= meeting->ranks || h.rank <= meeting->rank || h.to != meeting->rank || h.kind >= SLUICE_LINK_KINDS ||
      c.port > UINT16_MAX)
    return sluice_error(SLUICE_INVALID, "a rank %u called rank %u of %u", h.rank, h.to, meeting->ranks);
  out_caller->port = (uint16_t)c.port;
  return NULL;
}
