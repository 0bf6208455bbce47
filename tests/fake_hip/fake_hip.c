/* A double of AMD's HIP library for tests/devices: that of NVIDIA's driver (tests/fake_cuda) with HIP's names, since
 * most entries agree, and HIP's own entries below. Kernels are host kernels; AMD's machine code runs on
 * tests/emulated_hip.
 */
#define fake_cuda_control fake_hip_control
#define cuInit hipInit
#define cuDriverGetVersion version_of_cuda /* HIP counts otherwise */
#define cuDeviceGetCount hipGetDeviceCount
#define cuDeviceGet hipDeviceGet
#define cuDeviceGetName hipDeviceGetName
#define cuDeviceGetAttribute hipDeviceGetAttribute
#define cuMemGetInfo_v2 hipMemGetInfo
#define cuMemAlloc_v2 hipMalloc
#define cuMemFree_v2 hipFree
#define cuMemHostAlloc hipHostMalloc
#define cuMemFreeHost hipHostFree
#define cuMemcpyHtoDAsync_v2 hipMemcpyHtoDAsync
#define cuMemcpyDtoHAsync_v2 hipMemcpyDtoHAsync
#define cuMemcpyDtoDAsync_v2 hipMemcpyDtoDAsync
#define cuStreamCreate hipStreamCreateWithFlags
#define cuStreamDestroy_v2 hipStreamDestroy
#define cuStreamSynchronize hipStreamSynchronize
#define cuStreamWriteValue32_v2 hipStreamWriteValue32
#define cuEventCreate hipEventCreateWithFlags
#define cuEventDestroy_v2 hipEventDestroy
#define cuEventRecord hipEventRecord
#define cuEventSynchronize hipEventSynchronize
#define cuEventElapsedTime hipEventElapsedTime
#define cuModuleLoadDataEx hipModuleLoadDataEx
#define cuModuleUnload hipModuleUnload
#define cuModuleGetFunction hipModuleGetFunction
#define cuStreamBeginCapture_v2 hipStreamBeginCapture
#define cuStreamEndCapture hipStreamEndCapture
#define cuGraphInstantiateWithFlags hipGraphInstantiateWithFlags
#define cuGraphLaunch hipGraphLaunch
#define cuGraphDestroy hipGraphDestroy
#define cuGraphExecDestroy hipGraphExecDestroy
#include "fake_cuda/fake_cuda.c"

int hipDriverGetVersion(int *out) {
  ENTRY;
  *out = 60200000;
  return 0;
}

int hipSetDevice(int device) {
  (void)device;
  ENTRY;
  return 0;
}

const char *hipGetErrorName(int result) {
  return result == OUT_OF_MEMORY ? "hipErrorOutOfMemory" : "hipErrorUnknown";
}

const char *hipGetErrorString(int result) {
  (void)result;
  return "as the test wants it";
}

int hipGetDeviceProperties(void *properties, int device) {
  (void)device;
  ENTRY;
  snprintf((char *)properties + 1160, 256, "gfx942:sramecc+:xnack-");
  return 0;
}

int hipDeviceGetPCIBusId(char *id, int length, int device) {
  (void)device;
  ENTRY;
  snprintf(id, (size_t)length, "none");
  return 0;
}

/* Workgroup memory is of a size that the code states: here it is enough for the kernels of the tests. */
int hipModuleLaunchKernel(void *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **parameters,
                          void **extra) {
  enum { WORKGROUP_BYTES = 65536 };
  const launch_config config = {
      {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared + WORKGROUP_BYTES, stream, NULL, 0};
  return cuLaunchKernelEx(&config, kernel, parameters, extra);
}
