/* A TCP port of the loopback address at which nobody listens. */
#ifndef TESTS_SUPPORT_FREE_PORT_H
#define TESTS_SUPPORT_FREE_PORT_H

#include <stdint.h>

uint16_t free_port(void); /* 0: there is none */

#endif
