#include "support/free_port.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

uint16_t free_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return 0;
  const int failed = bind(descriptor, (struct sockaddr *)(void *)&address, sizeof address) ||
                     getsockname(descriptor, (struct sockaddr *)(void *)&address, &length);
  close(descriptor);
  return failed ? 0 : ntohs(address.sin_port);
}
