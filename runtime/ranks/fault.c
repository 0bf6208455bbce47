#include "runtime/ranks/fault.h"

static const char *const call_names[SLUICE_CALL_KINDS] = {"all_reduce", "all_gather", "broadcast"};

int sluice_fault_is_valid(const sluice_fault *fault, uint32_t ranks) {
  return fault->kind < SLUICE_FAULT_KINDS && fault->rank < ranks && fault->expected.kind < SLUICE_CALL_KINDS &&
         fault->made.kind < SLUICE_CALL_KINDS;
}

sluice_status *sluice_fault_error(const sluice_fault *f) {
  const unsigned long long step = f->expected.step;
  const char *what = call_names[f->expected.kind];
  switch ((sluice_fault_kind)f->kind) {
  case SLUICE_FAULT_ENDED:
    return sluice_error(SLUICE_DEVICE, "rank %u ended in step %llu, while others waited for it in %s", f->rank, step,
                        what);
  case SLUICE_FAULT_LEFT:
    return sluice_error(SLUICE_DEVICE, "rank %u left before step %llu was done; others wait for it in %s", f->rank,
                        step, what);
  case SLUICE_FAULT_LATE:
    return sluice_error(SLUICE_DEVICE, "rank %u hangs: in step %llu others waited %g s for it in %s", f->rank, step,
                        f->deadline, what);
  case SLUICE_FAULT_ABSENT:
    return sluice_error(SLUICE_DEVICE, "rank %u never joined: in step %llu others waited %g s for it in %s", f->rank,
                        step, f->deadline, what);
  case SLUICE_FAULT_UNREACHABLE:
    return sluice_error(SLUICE_DEVICE,
                        "rank %u cannot be reached: in step %llu its machine or the link to it stopped answering, "
                        "while others waited for it in %s",
                        f->rank, step, what);
  case SLUICE_FAULT_DIFFERS:
  case SLUICE_FAULT_KINDS:
    break;
  }
  return sluice_error(SLUICE_DEVICE,
                      "rank %u is out of step: it does %s of %llu bytes in step %llu, rank 0 %s of %llu in step %llu",
                      f->rank, call_names[f->made.kind], (unsigned long long)f->made.bytes,
                      (unsigned long long)f->made.step, what, (unsigned long long)f->expected.bytes, step);
}
