/* A model of what joins devices: how long an exchange between ranks takes before anyone has measured it. For `sluice
 * explain`. Two numbers for each machine: what an exchange of a few bytes takes, and the rate at which more come. */
#ifndef COMPILER_LINKS_H
#define COMPILER_LINKS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct links {
  double microseconds;     /* of an exchange of a few bytes among the devices of a node; 0: nothing is known */
  double gigabytes_second; /* 1e9 bytes, into one device: see `mesh` */
  bool mesh;               /* each pair has a link with this rate; otherwise a device has it for all others together */
  const char *source;      /* of both numbers, for people */
} links;

enum { LINKS_NODE = 8 }; /* devices that links join; ranks beyond them are reached through the network */

/* Seconds until each of `ranks` ranks has the `bytes` bytes of every other one, and they have its. */
double links_seconds(const links *known, uint32_t ranks, double bytes);

#endif
