/* TCP sockets with deadlines. All are non-blocking and closed in programs that are started. `until` is a time of
 * sluice_seconds. */
#ifndef SLUICE_RUNTIME_RANKS_SOCKETS_H
#define SLUICE_RUNTIME_RANKS_SOCKETS_H

#include "sluice/status.h"

#include <stdbool.h>
#include <sys/socket.h>

typedef struct sluice_endpoint {
  struct sockaddr_storage address; /* IPv4 or IPv6 */
  socklen_t length;
} sluice_endpoint;

typedef struct sluice_endpoint_text {
  char text[80];
} sluice_endpoint_text;

enum { SLUICE_MOST_ENDPOINTS = 8 };

/* What `host`, a name or an address, stands for: up to SLUICE_MOST_ENDPOINTS endpoints. */
SLUICE_MUST_USE sluice_status *sluice_endpoints_find(const char *host, uint16_t port, sluice_endpoint *out,
                                                     size_t *out_count);
sluice_endpoint_text sluice_endpoint_describe(const sluice_endpoint *endpoint); /* "10.0.0.1:29500" */
bool sluice_endpoint_is_loopback(const sluice_endpoint *endpoint);
uint16_t sluice_endpoint_port(const sluice_endpoint *endpoint);
void sluice_endpoint_set_port(sluice_endpoint *endpoint, uint16_t port);

/* The two ends of a connected socket, or of a listening one its own. */
sluice_endpoint sluice_socket_own(int descriptor);
sluice_endpoint sluice_socket_peer(int descriptor);

/* Listens at an endpoint; NULL: at every address of this machine, `port`. Port 0: one that is free. */
SLUICE_MUST_USE sluice_status *sluice_socket_listen(const sluice_endpoint *at, uint16_t port, int *out_descriptor);
/* The next connection, or -1 when none waits. */
int sluice_socket_accept(int listening);
SLUICE_MUST_USE sluice_status *sluice_socket_connect(const sluice_endpoint *to, double until, int *out_descriptor);

/* All of `bytes` bytes, or an error: SLUICE_DEVICE when the deadline passed, SLUICE_IO when the other end is gone. */
SLUICE_MUST_USE sluice_status *sluice_socket_send(int descriptor, const void *data, size_t bytes, double until);
SLUICE_MUST_USE sluice_status *sluice_socket_receive(int descriptor, void *data, size_t bytes, double until);

/* Waits until `descriptor` has one of the poll `events` or `until` has come; false for the latter. */
bool sluice_socket_wait(int descriptor, short events, double until);

/* Has the kernel ask a silent peer's machine for a sign of life, often enough that one which does not answer for
 * `seconds` is known to be gone. */
void sluice_socket_watch(int descriptor, double seconds);
/* Seconds since the peer's machine last answered; 0 when that is not known. */
double sluice_socket_silence(int descriptor);

#endif
