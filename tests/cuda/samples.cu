// Kernels with one property each, for the tests of the host stand-in.
#include <cuda_fp16.h>
#include <tensor.cuh>

struct Pair {
    int first;
    float second;
};

#ifndef BARRIER
#define BARRIER __syncthreads()
#endif

extern "C" __global__ void __launch_bounds__(256, 2)
reversed(const float* __restrict__ in, float* __restrict__ out, int n) {
    __shared__ float tile[256];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = i < n ? __ldg(in + i) : 0.0f;
    BARRIER;
    if (i < n) out[i] = tile[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void neighbour(const float* in, float* out) {  // reads what the thread before or behind wrote
    extern __shared__ __align__(16) float row[];
    const int n = blockDim.x, i = threadIdx.x;
    row[i] = in[i];
    BARRIER;
    out[i] = row[(i + SIDE + n) % n];
}

extern "C" __global__ void shared_between_lanes(const float* in, float* out) {
    __shared__ float row[32];
    row[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    const float left = row[threadIdx.x ^ 1];
    __syncwarp();
    row[threadIdx.x] = left;
    __syncwarp();
    out[threadIdx.x] = row[31 - threadIdx.x];
}

extern "C" __global__ void indices(int4* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
        make_int4(threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z);
}

extern "C" __global__ void shuffles(const int* in, int* out) {
    const int lane = threadIdx.x, value = in[lane];
    out[lane] = __shfl_sync(0xffffffff, value, lane / 2);
    out[lane + 32] = __shfl_xor_sync(0xffffffff, value, 5);
    out[lane + 64] = __shfl_up_sync(0xffffffff, value, 3);
    out[lane + 96] = __shfl_down_sync(0xffffffff, value, 3);
    out[lane + 128] = __shfl_sync(0xffffffff, value, 1, 8);
    out[lane + 160] = __ballot_sync(0xffffffff, value & 1);
    out[lane + 192] = __reduce_add_sync(0xffffffff, value);
    const unsigned half = lane < 16 ? 0xffff : 0xffff0000;
    out[lane + 224] = __reduce_max_sync(half, value);
    out[lane + 256] = __any_sync(half, value == 7) + 2 * __all_sync(half, value < 16);
}

extern "C" __global__ void counts(const unsigned char* in, int* total, unsigned* most, int* votes) {
    const int value = in[threadIdx.x];
    atomicAdd(total, value);
    atomicMax(most, (unsigned)value);
    const int count = __syncthreads_count(value > 100);
    const int any = __syncthreads_or(value == 255), all = __syncthreads_and(value < 255);
    if (threadIdx.x == 0) votes[0] = count, votes[1] = any, votes[2] = all;
}

extern "C" __global__ void halves(const float* in, __half* out, unsigned short* slow, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    out[i] = __float2half_rn(in[i]);
    slow[i] = cuda_host::half_of(in[i]);
}

extern "C" __global__ void floats(const __half* in, float* out, float* slow) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = __half2float(in[i]);
    slow[i] = cuda_host::float_of(__half_as_ushort(in[i]));
}

extern "C" __global__ void half_arithmetic(const __half2* a, const __half2* b, const __half2* c, __half2* out, int n) {
    const int i = threadIdx.x;
    out[i] = __hadd2(a[i], b[i]);
    out[n + i] = a[i] * b[i];
    out[2 * n + i] = __hfma2(a[i], b[i], c[i]);
    out[3 * n + i] = __hmax2(a[i], __hsub2(b[i], c[i]));
}

extern "C" __global__ void product(const __half* a, const __half* b, float* d) {  // 16x16 by rows, 16x8 by rows
    __shared__ __align__(16) __half left[16][24];
    __shared__ __align__(16) __half right[16][8];
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) left[i / 16][i % 16] = a[i];
    for (int i = lane; i < 128; i += 32) right[i / 8][i % 8] = b[i];
    __syncwarp();
    unsigned from[4], by[2];
    ldmatrix(from, &left[lane % 16][lane / 16 * 8]);
    ldmatrix<2, true>(by, &right[lane % 16][0]);
    float sum[4] = {1, 1, 1, 1};
    mma_m16n8k16(sum, from, by, sum);
    for (int i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

extern "C" __global__ void parameters(Pair pair, int4 four, __half half, long long big, bool yes, const void* none,
                                      float* out) {
    out[0] = pair.first + pair.second;
    out[1] = four.x + four.w;
    out[2] = __half2float(half);
    out[3] = (float)(big >> 32);
    out[4] = yes;
    out[5] = none == nullptr;
}

// What may not be

extern "C" __global__ void copies(const float* in, float* out, int first, int last) {
    for (int i = first; i < last; i++) out[i] = in[i];
}

extern "C" __global__ void pads(float* out, int at) { out[at] = 1; }

extern "C" __global__ void unaligned(const float* in, float4* out) { *out = *(const float4*)(in + threadIdx.x); }

extern "C" __global__ void index_out_of_bounds(int at, float* out) {
    __shared__ float tile[8];
    tile[threadIdx.x] = 0;
    *out = tile[at];
}

extern "C" __global__ void dynamic_out_of_bounds(float* out, int at) {
    extern __shared__ float tile[];
    tile[threadIdx.x] = 0;
    *out = tile[at];
}

extern "C" __global__ void some_wait(float* out) {
    if (threadIdx.x != 3) __syncthreads();
    out[threadIdx.x] = 1;
}

extern "C" __global__ void lanes_part(float* out) {
    if (threadIdx.x < 5) return;
    out[threadIdx.x] = __shfl_sync(0xffffffff, 1.0f, 6);
}

extern "C" __global__ void lanes_disagree(float* out) {
    if (threadIdx.x % 2) __syncwarp();
    else out[threadIdx.x] = __shfl_sync(0xffffffff, 1.0f, 6);
}
