#include "runtime/exchange.h"

#include "runtime/collectives.h"
#include "sluice/memory.h"

/* Devices with memory of their own: through the host's. */
static sluice_status *exchange_through_host(sluice_device *device, sluice_group *group, const void *own, size_t bytes,
                                            void *all) {
  char *memory = sluice_allocate(bytes * (group->ranks + 1));
  if (!memory) return sluice_out_of_memory();
  sluice_status *status = device->driver->copy_out(device, memory, own, bytes);
  if (!status) status = group->collectives->all_gather(group, memory, bytes, memory + bytes);
  if (!status) status = device->driver->copy_in(device, all, memory + bytes, bytes * group->ranks);
  sluice_release(memory);
  return status;
}

sluice_status *sluice_exchange(sluice_session *session, const sluice_plan_launch *launch, void *const *arguments,
                               const int32_t sizes[SLUICE_SIZE_COUNT]) {
  const sluice_model *model = session->model;
  const sluice_plan *plan = &model->plan;
  const sluice_plan_buffer *buffer = &plan->buffers[plan->arguments[launch->first_argument].index];
  const size_t row_bytes = buffer->width * sluice_dtype_size((sluice_dtype)buffer->dtype);
  const size_t bytes = (size_t)sizes[buffer->size] * row_bytes;
  sluice_device *device = session->device;
  if (!device->host_memory) return exchange_through_host(device, model->group, arguments[0], bytes, arguments[1]);
  SLUICE_TRY(device->driver->synchronize(device));
  return model->group->collectives->all_gather(model->group, arguments[0], bytes, arguments[1]);
}
