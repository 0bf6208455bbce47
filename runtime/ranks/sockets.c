#include "runtime/ranks/sockets.h"

#include "runtime/model.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- Endpoints ---- */

static const struct sockaddr *address_of(const sluice_endpoint *endpoint) {
  return (const struct sockaddr *)(const void *)&endpoint->address;
}

sluice_status *sluice_endpoints_find(const char *host, uint16_t port, sluice_endpoint *out, size_t *out_count) {
  const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  struct addrinfo *found = NULL;
  *out_count = 0;
  const int error = getaddrinfo(host, NULL, &hints, &found);
  if (error)
    return sluice_error(SLUICE_NOT_FOUND, "host \"%s\": %s", host,
                        error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
  for (const struct addrinfo *at = found; at && *out_count < SLUICE_MOST_ENDPOINTS; at = at->ai_next) {
    if (at->ai_family != AF_INET && at->ai_family != AF_INET6) continue;
    sluice_endpoint *endpoint = &out[(*out_count)++];
    *endpoint = (sluice_endpoint){.length = at->ai_addrlen};
    memcpy(&endpoint->address, at->ai_addr, at->ai_addrlen);
    sluice_endpoint_set_port(endpoint, port);
  }
  freeaddrinfo(found);
  if (*out_count) return NULL;
  return sluice_error(SLUICE_NOT_FOUND, "host \"%s\" has neither an IPv4 nor an IPv6 address", host);
}

static struct sockaddr_in *ipv4(sluice_endpoint *endpoint) {
  return (struct sockaddr_in *)(void *)&endpoint->address;
}

static struct sockaddr_in6 *ipv6(sluice_endpoint *endpoint) {
  return (struct sockaddr_in6 *)(void *)&endpoint->address;
}

sluice_endpoint_text sluice_endpoint_describe(const sluice_endpoint *endpoint) {
  sluice_endpoint copy = *endpoint;
  sluice_endpoint_text result;
  char address[INET6_ADDRSTRLEN] = "?";
  const bool four = copy.address.ss_family == AF_INET;
  if (four)
    inet_ntop(AF_INET, &ipv4(&copy)->sin_addr, address, sizeof address);
  else if (copy.address.ss_family == AF_INET6)
    inet_ntop(AF_INET6, &ipv6(&copy)->sin6_addr, address, sizeof address);
  if (strncmp(address, "::ffff:", 7) == 0) /* IPv4 on a socket of both */
    snprintf(result.text, sizeof result.text, "%s:%u", address + 7, sluice_endpoint_port(endpoint));
  else
    snprintf(result.text, sizeof result.text, four ? "%s:%u" : "[%s]:%u", address, sluice_endpoint_port(endpoint));
  return result;
}

bool sluice_endpoint_is_loopback(const sluice_endpoint *endpoint) {
  sluice_endpoint copy = *endpoint;
  if (copy.address.ss_family == AF_INET) return ntohl(ipv4(&copy)->sin_addr.s_addr) >> 24 == 127;
  const struct in6_addr *six = &ipv6(&copy)->sin6_addr;
  return copy.address.ss_family == AF_INET6 &&
         (IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127));
}

uint16_t sluice_endpoint_port(const sluice_endpoint *endpoint) {
  sluice_endpoint copy = *endpoint;
  return ntohs(copy.address.ss_family == AF_INET6 ? ipv6(&copy)->sin6_port : ipv4(&copy)->sin_port);
}

void sluice_endpoint_set_port(sluice_endpoint *endpoint, uint16_t port) {
  if (endpoint->address.ss_family == AF_INET6)
    ipv6(endpoint)->sin6_port = htons(port);
  else
    ipv4(endpoint)->sin_port = htons(port);
}

sluice_endpoint sluice_socket_own(int descriptor) {
  sluice_endpoint endpoint = {.length = sizeof endpoint.address};
  getsockname(descriptor, (struct sockaddr *)(void *)&endpoint.address, &endpoint.length);
  return endpoint;
}

sluice_endpoint sluice_socket_peer(int descriptor) {
  sluice_endpoint endpoint = {.length = sizeof endpoint.address};
  getpeername(descriptor, (struct sockaddr *)(void *)&endpoint.address, &endpoint.length);
  return endpoint;
}

/* ---- Connections ---- */

static void set(int descriptor, int level, int option, int value) {
  setsockopt(descriptor, level, option, &value, sizeof value);
}

static int open_socket(int family) {
  return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

sluice_status *sluice_socket_listen(const sluice_endpoint *at, uint16_t port, int *out_descriptor) {
  sluice_endpoint everywhere = {.length = sizeof(struct sockaddr_in6)};
  int descriptor = -1;
  *out_descriptor = -1;
  if (!at) {
    at = &everywhere;
    ipv6(&everywhere)->sin6_family = AF_INET6;
    descriptor = open_socket(AF_INET6);
    if (descriptor >= 0) set(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (descriptor < 0) { /* a machine without IPv6 */
      everywhere = (sluice_endpoint){.length = sizeof(struct sockaddr_in)};
      ipv4(&everywhere)->sin_family = AF_INET;
    }
    sluice_endpoint_set_port(&everywhere, port);
  }
  if (descriptor < 0) descriptor = open_socket(at->address.ss_family);
  if (descriptor >= 0) set(descriptor, SOL_SOCKET, SO_REUSEADDR, 1);
  if (descriptor < 0 || bind(descriptor, address_of(at), at->length) != 0 || listen(descriptor, 128) != 0) {
    const int error = errno;
    if (descriptor >= 0) close(descriptor);
    return sluice_error(SLUICE_IO, "listening at %s: %s", sluice_endpoint_describe(at).text, strerror(error));
  }
  *out_descriptor = descriptor;
  return NULL;
}

int sluice_socket_accept(int listening) {
  const int descriptor = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (descriptor >= 0) set(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
  return descriptor;
}

bool sluice_socket_wait(int descriptor, short events, double until) {
  for (;;) {
    struct pollfd entry = {.fd = descriptor, .events = events};
    const double left = until - sluice_seconds();
    if (poll(&entry, 1, left <= 0 ? 0 : left > 1000 ? 1000000 : (int)(left * 1000) + 1) > 0) return true;
    if (left <= 0) return false;
  }
}

sluice_status *sluice_socket_connect(const sluice_endpoint *to, double until, int *out_descriptor) {
  *out_descriptor = -1;
  const int descriptor = open_socket(to->address.ss_family);
  int error = errno;
  if (descriptor >= 0) {
    set(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
    error = connect(descriptor, address_of(to), to->length) == 0 ? 0 : errno;
  }
  if (error == EINPROGRESS) {
    socklen_t length = sizeof error;
    if (!sluice_socket_wait(descriptor, POLLOUT, until))
      error = ETIMEDOUT;
    else
      getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length);
  }
  if (error) {
    if (descriptor >= 0) close(descriptor);
    return sluice_error(SLUICE_IO, "connecting to %s: %s", sluice_endpoint_describe(to).text, strerror(error));
  }
  *out_descriptor = descriptor;
  return NULL;
}

/* ---- Bytes ---- */

static sluice_status *transfer(int descriptor, char *data, size_t bytes, double until, bool send_it) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t now = send_it ? send(descriptor, data + done, bytes - done, MSG_NOSIGNAL)
                                : recv(descriptor, data + done, bytes - done, 0);
    if (now > 0) {
      done += (size_t)now;
      continue;
    }
    if (now == 0) return sluice_error(SLUICE_IO, "the connection was closed");
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return sluice_error(SLUICE_IO, "%s", strerror(errno));
    if (!sluice_socket_wait(descriptor, send_it ? POLLOUT : POLLIN, until))
      return sluice_error(SLUICE_DEVICE, "no answer in time");
  }
  return NULL;
}

sluice_status *sluice_socket_send(int descriptor, const void *data, size_t bytes, double until) {
  return transfer(descriptor, (char *)(uintptr_t)data, bytes, until, true);
}

sluice_status *sluice_socket_receive(int descriptor, void *data, size_t bytes, double until) {
  return transfer(descriptor, data, bytes, until, false);
}

void sluice_socket_watch(int descriptor, double seconds) {
  enum { QUESTIONS = 3 };
  const int every = seconds < 2 * QUESTIONS ? 1 : seconds > 600 ? 100 : (int)(seconds / (2 * QUESTIONS));
  set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, every);
  set(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, every);
  set(descriptor, IPPROTO_TCP, TCP_KEEPCNT, QUESTIONS);
}

double sluice_socket_silence(int descriptor) {
  struct tcp_info info = {0};
  socklen_t length = sizeof info;
  if (getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return 0;
  const uint32_t ack = info.tcpi_last_ack_recv, data = info.tcpi_last_data_recv;
  return 1e-3 * (ack < data ? ack : data);
}
