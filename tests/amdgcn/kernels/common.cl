/* Kernels for tests of the interpreter, of the kinds that a model needs. Each is checked against plain loops on the
 * host. */
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma OPENCL EXTENSION cl_khr_fp64 : enable

#define KERNEL(lanes) kernel __attribute__((reqd_work_group_size(lanes, 1, 1))) void
typedef float float4v __attribute__((ext_vector_type(4)));
typedef float float16v __attribute__((ext_vector_type(16)));
typedef short short4v __attribute__((ext_vector_type(4)));

static uint lane(void) {
  return __builtin_amdgcn_workitem_id_x();
}
static uint group(void) {
  return __builtin_amdgcn_workgroup_id_x();
}
static void barrier_all(void) {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

/* Sizes from the hidden arguments. */
kernel void add(global const float *a, global const float *b, global float *c, uint n) {
  size_t i = group() * __builtin_amdgcn_workgroup_size_x() + lane();
  if (i < n) c[i] = a[i] + b[i];
}

/* Sums of rows of n: a tree in LDS. */
KERNEL(256) row_sums(global const float *a, global float *out, uint n) {
  local float partial[256];
  float sum = 0;
  for (uint k = lane(); k < n; k += 256) sum += a[group() * n + k];
  partial[lane()] = sum;
  barrier_all();
  for (uint half_ = 128; half_ > 0; half_ >>= 1) {
    if (lane() < half_) partial[lane()] += partial[lane() + half_];
    barrier_all();
  }
  if (lane() == 0) out[group()] = partial[0];
}

/* Softmax of rows of n: ds_bpermute within the wave, LDS between waves. */
static float wave_reduce(float x, bool is_max) {
  for (int k = 1; k < 64; k <<= 1) {
    float y = as_float(__builtin_amdgcn_ds_bpermute((int)((lane() ^ k) & 63) << 2, as_int(x)));
    x = is_max ? (x > y ? x : y) : x + y;
  }
  return x;
}
KERNEL(256) softmax(global const float *a, global float *out, uint n) {
  local float parts[4];
  float most = -INFINITY, sum = 0;
  for (uint k = lane(); k < n; k += 256) most = a[group() * n + k] > most ? a[group() * n + k] : most;
  most = wave_reduce(most, true);
  if ((lane() & 63) == 0) parts[lane() >> 6] = most;
  barrier_all();
  for (uint k = 0; k < 4; k++) most = parts[k] > most ? parts[k] : most;
  barrier_all();
  for (uint k = lane(); k < n; k += 256) sum += __builtin_amdgcn_exp2f((a[group() * n + k] - most) * 1.44269504f);
  sum = wave_reduce(sum, false);
  if ((lane() & 63) == 0) parts[lane() >> 6] = sum;
  barrier_all();
  sum = parts[0] + parts[1] + parts[2] + parts[3];
  for (uint k = lane(); k < n; k += 256) {
    out[group() * n + k] = __builtin_amdgcn_exp2f((a[group() * n + k] - most) * 1.44269504f) / sum;
  }
}

/* C[m, n] = A[m, k] B[n, k]^T, bfloat16 to float32: tiles of 64 x 64 in LDS, v_mfma_f32_32x32x8_bf16. */
KERNEL(256) gemm_bf16(global const short *a, global const short *b, global float *c, uint m, uint n, uint depth) {
  local short tile_a[64 * 20], tile_b[64 * 20];
  uint wave = lane() >> 6, l = lane() & 63, row = lane() >> 2, column = (lane() & 3) * 4;
  uint first_row = __builtin_amdgcn_workgroup_id_y() * 64, first_column = group() * 64;
  float16v sum = 0;
  for (uint k = 0; k < depth; k += 16) {
    short4v x = *(global const short4v *)(a + (size_t)(first_row + row) * depth + k + column);
    short4v y = *(global const short4v *)(b + (size_t)(first_column + row) * depth + k + column);
    barrier_all();
    *(local short4v *)(tile_a + row * 20 + column) = x;
    *(local short4v *)(tile_b + row * 20 + column) = y;
    barrier_all();
    for (uint part = 0; part < 16; part += 8) {
      short4v p = *(local short4v *)(tile_a + ((wave >> 1) * 32 + (l & 31)) * 20 + part + (l >> 5) * 4);
      short4v q = *(local short4v *)(tile_b + ((wave & 1) * 32 + (l & 31)) * 20 + part + (l >> 5) * 4);
      sum = __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(p, q, sum, 0, 0, 0);
    }
  }
  for (uint r = 0; r < 16; r++) {
    uint to = first_row + (wave >> 1) * 32 + (r / 4) * 8 + (l >> 5) * 4 + (r & 3);
    c[(size_t)to * n + first_column + (wave & 1) * 32 + (l & 31)] = sum[r];
  }
}

/* One wave: C[16, 16] = A[16, k] B[16, k]^T in float32. */
KERNEL(64) gemm_f32(global const float *a, global const float *b, global float *c, uint depth) {
  float4v sum = 0;
  for (uint k = 0; k < depth; k += 4) {
    uint from = (lane() & 15) * depth + k + (lane() >> 4);
    sum = __builtin_amdgcn_mfma_f32_16x16x4f32(a[from], b[from], sum, 0, 0, 0);
  }
  for (uint r = 0; r < 4; r++) c[((lane() >> 4) * 4 + r) * 16 + (lane() & 15)] = sum[r];
}

/* A histogram of 64 classes, first in LDS; the largest value; a sum by compare and swap; one in float32. */
KERNEL(256) histogram(global const int *a, global int *classes, global int *most, global int *swapped,
                      global float *sum) {
  local int here[64];
  uint i = group() * 256 + lane();
  if (lane() < 64) here[lane()] = 0;
  barrier_all();
  __opencl_atomic_fetch_add((local atomic_int *)&here[a[i] & 63], 1, memory_order_relaxed, memory_scope_work_group);
  barrier_all();
  if (lane() < 64) {
    __opencl_atomic_fetch_add((global atomic_int *)&classes[lane()], here[lane()], memory_order_relaxed,
                              memory_scope_device);
  }
  __opencl_atomic_fetch_max((global atomic_int *)most, a[i], memory_order_relaxed, memory_scope_device);
  int expected = 0;
  while (!__opencl_atomic_compare_exchange_strong((global atomic_int *)swapped, &expected, expected + 3,
                                                  memory_order_relaxed, memory_order_relaxed, memory_scope_device)) {
  }
  __builtin_amdgcn_global_atomic_fadd_f32(sum, 1.5f);
}

/* Arrays in scratch, with an index that is not known before. */
KERNEL(256) shuffle_in_scratch(global const int *a, global int *out) {
  uint i = group() * 256 + lane();
  int t[32], r = 0;
  for (uint k = 0; k < 32; k++) t[k] = a[(i * 7 + k * 13) & 1023];
  for (uint k = 0; k < 32; k++) {
    int j = t[k] & 31, s = t[j];
    t[j] = t[k] + 1;
    t[k] = s;
  }
  for (uint k = 0; k < 32; k++) r = r * 31 + t[k];
  out[i] = r;
}

/* Lanes that leave loops at different times. */
KERNEL(256) divergent(global const int *a, global int *out) {
  uint i = group() * 256 + lane();
  int n = a[i] & 63, r = 0;
  for (int k = 0; k < n; k++) {
    if ((k ^ (int)i) & 1) {
      r += k * (int)i;
      if (r > 100000) break;
    } else {
      r ^= k;
      if ((r & 7) == 3) continue;
      r += 5;
    }
  }
  out[i] = r;
}

/* Arithmetic of all kinds: what C says, the host computes too. */
KERNEL(256) integers(global const int *a, global int *out) {
  uint i = group() * 256 + lane();
  int x = a[2 * i], y = a[2 * i + 1], r = 0;
  uint u = (uint)x, v = (uint)y;
  r += x * y;
  r ^= __builtin_clz(u | 1) + __builtin_ctz(v | 1);
  r += __builtin_popcount(u);
  r ^= (int)(((long)x * y) >> 32);
  r += (int)(((ulong)u * v) >> 32);
  r ^= x >> (y & 31);
  r += (int)(u >> (v & 31));
  r ^= (int)((u << 7) | (u >> 25));
  r += (x > y ? x : y) ^ (int)(u < v ? u : v);
  r += (char)x + (short)y * (uchar)u;
  r ^= x / ((y & 0xff) + 1);
  r += (int)(u % ((v & 0xfff) + 3));
  long p = (long)x << 20 | y, q = (long)y * 7 + x;
  p = p * q + (p >> (v & 31));
  p ^= p / (q | 1);
  out[i] = r + (int)(p >> 17);
}
KERNEL(256) floats(global const float *a, global float *out) {
  uint i = group() * 256 + lane();
  float x = a[2 * i], y = a[2 * i + 1], r = x * y;
  r = __builtin_fmaf(x, r, y);
  r += x / (__builtin_fabsf(y) + 0.5f);
  r += __builtin_floorf(x * 10) + __builtin_rintf(y * 10) + __builtin_truncf(x) + __builtin_ceilf(y);
  r += (float)(int)(x * 100) + (float)(uint)(__builtin_fabsf(y) * 100);
  half h = (half)x, g = (half)y;
  r += (float)(h * g + h);
  double d = (double)x * y + x;
  r += (float)(d - (double)(int)(y * 3));
  out[i] = r;
}

/* Buffers end at `bytes`: loads behind are zeros, stores are dropped. */
typedef int int4v __attribute__((ext_vector_type(4)));
KERNEL(256) bounded(global const int *a, global int *wide, global int *narrow, uint bytes) {
  __amdgpu_buffer_rsrc_t from = __builtin_amdgcn_make_buffer_rsrc((global void *)a, 0, bytes, 0x27000);
  __amdgpu_buffer_rsrc_t to = __builtin_amdgcn_make_buffer_rsrc((global void *)narrow, 0, bytes, 0x27000);
  int4v x = __builtin_bit_cast(int4v, __builtin_amdgcn_raw_buffer_load_b128(from, lane() * 16, 0, 0));
  *(global int4v *)(wide + 4 * lane()) = x;
  __builtin_amdgcn_raw_buffer_store_b32(x.x, to, lane() * 8, 0, 0);
}

/* Global memory straight to LDS, a wave's lanes side by side, read by another wave behind the barrier. */
KERNEL(256) reversed(global const int *a, global int *out) {
  local int place[256];
  uint i = group() * 256 + lane();
  __builtin_amdgcn_global_load_lds(a + i, place + (lane() & ~63u), 4, 0, 0);
  __builtin_amdgcn_s_waitcnt(0);
  barrier_all();
  out[i] = place[255 - lane()];
}
