/* All targets: a line for each folder of backends/, which defines a `backend` of that name (backends/common/backend.h).
 */
#define BACKENDS(backend) backend(host) backend(nvptx) backend(amdgcn)
