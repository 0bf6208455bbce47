/* Kernels full of instructions that must not follow each other too soon: the compiler puts s_nop between them, as many
 * wait states as are needed. Their results do not matter. */
#pragma OPENCL EXTENSION cl_khr_fp64 : enable

typedef float float4v __attribute__((ext_vector_type(4)));
typedef float float16v __attribute__((ext_vector_type(16)));
typedef short short4v __attribute__((ext_vector_type(4)));
typedef double double4v __attribute__((ext_vector_type(4)));
typedef int int4v __attribute__((ext_vector_type(4)));
#define KERNEL kernel __attribute__((reqd_work_group_size(64, 1, 1))) void

static uint lane(void) {
  return __builtin_amdgcn_workitem_id_x();
}
static short4v pack(float4v x) {
  short4v r;
  for (int k = 0; k < 4; k++) r[k] = as_int(x[k]) >> 16;
  return r;
}

KERNEL chain_16(global float4v *p) {
  float4v c = p[lane()];
  short4v a = pack(p[lane() + 64]);
  for (int k = 0; k < 3; k++) {
    c = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, pack(c), c, 0, 0, 0);
    c = c * 0.5f + 1.0f;
    c = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(pack(c), a, c, 0, 0, 0);
  }
  p[lane()] = c;
  p[lane() + 64] = c + c;
}
KERNEL chain_32(global float16v *p, global short4v *q) {
  float16v c = p[lane()];
  short4v a = q[lane()];
  for (int k = 0; k < 2; k++) {
    c = __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(a, q[lane() + 64], c, 0, 0, 0);
    float4v t = c.s0123;
    a = pack(t);
  }
  p[lane()] = c;
}
KERNEL chain_4(global float4v *p, global short4v *q) {
  float4v c = p[lane()];
  short4v a = q[lane()];
  c = __builtin_amdgcn_mfma_f32_4x4x4bf16_1k(a, a, c, 0, 0, 0);
  c = __builtin_amdgcn_mfma_f32_4x4x4bf16_1k(pack(c), a, c, 0, 0, 0);
  p[lane()] = c;
}
KERNEL chain_f32(global float4v *p, global float *q) {
  float4v c = p[lane()];
  float a = q[lane()];
  c = __builtin_amdgcn_mfma_f32_16x16x4f32(a, a, c, 0, 0, 0);
  a = c.x;
  c = __builtin_amdgcn_mfma_f32_16x16x4f32(a, c.y, c, 0, 0, 0);
  p[lane()] = c;
  p[lane() + 64] = c * 2.0f;
}
KERNEL chain_f64(global double4v *p, global double *q) {
  double4v c = p[lane()];
  double a = q[lane()];
  c = __builtin_amdgcn_mfma_f64_16x16x4f64(a, a, c, 0, 0, 0);
  c = __builtin_amdgcn_mfma_f64_16x16x4f64(c.x, c.y, c, 0, 0, 0);
  p[lane()] = c;
  p[lane() + 64] = c * 2.0;
}
KERNEL chain_f64_blocks(global double *p) {
  double c = p[lane()], a = p[lane() + 64];
  c = __builtin_amdgcn_mfma_f64_4x4x4f64(a, a, c, 0, 0, 0);
  c = __builtin_amdgcn_mfma_f64_4x4x4f64(c, a, c, 0, 0, 0);
  p[lane()] = c;
  p[lane() + 64] = c * 2.0;
}
KERNEL mixed(global float4v *p, global float *q) {
  local float4v place[64];
  float4v c = p[lane()];
  short4v a = pack(c);
  float4v d = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, a, c, 0, 0, 0);
  float4v e = __builtin_amdgcn_mfma_f32_16x16x4f32(q[lane()], d.x, d, 0, 0, 0);
  float4v f = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, pack(e), e, 0, 0, 0);
  place[lane()] = f;
  p[lane()] = place[63 - lane()];
  p[lane() + 128] = d;
}
KERNEL chain_i8(global int4v *p, global long *q) {
  int4v c = p[lane()];
  c = __builtin_amdgcn_mfma_i32_16x16x32_i8(q[lane()], q[lane() + 64], c, 0, 0, 0);
  long a = ((long)c.x << 32) | (uint)c.y;
  c = __builtin_amdgcn_mfma_i32_16x16x32_i8(a, q[lane()], c, 0, 0, 0);
  p[lane()] = c;
}
KERNEL vector_only(global float *p) {
  float x = p[lane()], y = __builtin_amdgcn_exp2f(x), z = y * 2.0f;
  int b = __builtin_amdgcn_readfirstlane(as_int(z));
  z += as_float(__builtin_amdgcn_readlane(as_int(z), b & 63));
  z += as_float(__builtin_amdgcn_update_dpp(0, as_int(z), 0x111, 15, 15, 1));
  p[lane()] = z / x;
  p[lane() + 64] = x > y ? z : y;
  p[lane() + 128 + (b & 1)] = sqrt(z);
}
