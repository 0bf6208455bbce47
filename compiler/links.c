#include "compiler/links.h"

/* A 400 Gb/s adapter for each device, and how much longer 128 tokens take to 16 MI300X than to 8 in the published table
 * of the MoRI library (76 to 35 us). */
static const double network_rate = 50e9, network_latency = 41e-6;

double links_seconds(const links *known, uint32_t ranks, double bytes) {
  if (ranks < 2) return 0;
  const uint32_t near = ranks < LINKS_NODE ? ranks : LINKS_NODE, far = ranks - near;
  const double rate = known->gigabytes_second * 1e9, latency = known->microseconds * 1e-6;
  const double from_near = known->mesh ? bytes / rate : (near - 1) * bytes / rate;
  if (far == 0) return latency + from_near;
  const double from_far = far * bytes / network_rate;
  return latency + network_latency + (from_far > from_near ? from_far : from_near);
}
