/* What every double of a GPU driver's library lets tests set and see, so that one suite (tests/devices) serves all of
 * them: the structure that its control function returns begins with these fields. */
#ifndef TESTS_SUPPORT_DRIVER_DOUBLE_H
#define TESTS_SUPPORT_DRIVER_DOUBLE_H

#include <stddef.h>

#define DRIVER_DOUBLE_FIELDS                                                                                           \
  size_t free_bytes;        /* limits the device's memory */                                                           \
  const char *fail;         /* entry that fails, by its name in the library, "*": any; NULL: none */                   \
  int fail_at, fail_result; /* its call number fail_at, from 0 on, with this result */                                 \
  int sticky;               /* 1: after the failure every call but releases fails in the same way */                   \
  int failed;               /* 1: the call that was to fail came */                                                    \
  int live;                 /* contexts, streams, events, modules, graphs, memory that there are */                    \
  int launches;             /* kernels put into the queue or recorded */

typedef struct driver_double {
  DRIVER_DOUBLE_FIELDS
} driver_double;

/* Back to a working driver with one GPU; counts of what happened to zero, but not `live`. */
typedef driver_double *driver_double_control(void);

#endif
