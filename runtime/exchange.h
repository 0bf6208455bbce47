/* What the ranks of a model bring together in a step: sluice_plan_launch.collective. */
#ifndef SLUICE_RUNTIME_EXCHANGE_H
#define SLUICE_RUNTIME_EXCHANGE_H

#include "runtime/session.h"

/* Brings what each rank has of the launch's first argument to its second one, when everything in the queue before has
 * run. `arguments` are the launch's, `sizes` the step's. Every rank of the group must come here for the same launch. */
SLUICE_MUST_USE sluice_status *sluice_exchange(sluice_session *session, const sluice_plan_launch *launch,
                                               void *const *arguments, const int32_t sizes[SLUICE_SIZE_COUNT]);

#endif
