// Features as they lie in the registers of a warp, shared by the kernels of networks. Include tensor.cuh before it.
//
// A warp has 16 pixels of a row, as the rows of tensor core products: pixels 2g and 2g + 1 (g = lane / 4) are rows g and
// g + 8 of A, so the two pixels of a lane are neighbours and share what layers see of them. Of 16 channels a lane has
// 8j + 2t and 8j + 2t + 1 (t = lane % 4, j = 0, 1), which is where a product leaves its result and where the next wants
// its input: 1x1 convolutions chain in registers.
#pragma once

#include <cuda_fp16.h>

typedef unsigned Fragment[4];  // a of a product; of features: channels 2t + i of both pixels, then channels 8 + 2t + i

__device__ __forceinline__ unsigned packed(float x, float y) {
    const __half2 both = __floats2half2_rn(x, y);
    return reinterpret_cast<const unsigned&>(both);
}

__device__ __forceinline__ float2 unpacked(unsigned both) { return __half22float2(reinterpret_cast<const __half2&>(both)); }

__device__ __forceinline__ __half2 halves(unsigned both) { return reinterpret_cast<const __half2&>(both); }

__device__ __forceinline__ unsigned bits(__half2 both) { return reinterpret_cast<const unsigned&>(both); }

// The larger of two pairs; NaN if either is, or nobody would hear of it.
__device__ __forceinline__ __half2 larger(__half2 x, __half2 y) {
#if __CUDA_ARCH__ >= 800
    return __hmax2_nan(x, y);
#else
    return __hfma2(x, __float2half2_rn(0.0f), __hmax2(x, y));
#endif
}

// x Phi(x) of two halves: max(x, 0) + f(|x|), f by a polynomial on [0, 4] in a variable of [-1, 1], so that what the
// roundings add stays as small as f: 2e-4 by the fit and 2.3e-4 (root of mean square) by half precision, all in all.
__device__ __forceinline__ unsigned gelu(__half2 x) {
    const __half2 at = __hfma2(__hmin2(__habs2(x), __float2half2_rn(4.0f)), __float2half2_rn(0.5f), __float2half2_rn(-1.0f));
    __half2 sum = __hfma2(at, __float2half2_rn(0.08167f), __float2half2_rn(-0.0584392f));
    sum = __hfma2(at, sum, __float2half2_rn(-0.2390437f));
    sum = __hfma2(at, sum, __float2half2_rn(0.3257859f));
    sum = __hfma2(at, sum, __float2half2_rn(-0.0142679f));
    sum = __hfma2(at, sum, __float2half2_rn(-0.2218639f));
    sum = __hfma2(at, sum, __float2half2_rn(0.1715782f));
    sum = __hfma2(at, sum, __float2half2_rn(-0.0453509f));
    const __half2 made = __hadd2(larger(x, __float2half2_rn(0.0f)), sum);
    return bits(made);
}

// 32 channels of a pixel in shared memory. Columns of a row are swapped such that the pixels that are read at once lie in
// different banks.
constexpr int PIXEL = 64;  // bytes
__device__ __forceinline__ int place(int column) { return (column ^ (column >> 1 & 1)) * PIXEL; }
__device__ __forceinline__ uint4 pixel(const char* at) { return *reinterpret_cast<const uint4*>(at); }

typedef __half2 Channels[4];  // pairs 8j + 2t, of float16

__device__ __forceinline__ void shift(Channels& sum, const uint4& bias) {
    sum[0] = halves(bias.x), sum[1] = halves(bias.y), sum[2] = halves(bias.z), sum[3] = halves(bias.w);
}

__device__ __forceinline__ void add(Channels& sum, const uint4& tap, const uint4& seen) {
    sum[0] = __hfma2(halves(tap.x), halves(seen.x), sum[0]);
    sum[1] = __hfma2(halves(tap.y), halves(seen.y), sum[1]);
    sum[2] = __hfma2(halves(tap.z), halves(seen.z), sum[2]);
    sum[3] = __hfma2(halves(tap.w), halves(seen.w), sum[3]);
}

// Adds both halves of a 16x16 product.
__device__ __forceinline__ void product(float (&low)[4], float (&high)[4], const Fragment& a, const uint4& b) {
    const unsigned first[2] = {b.x, b.y}, second[2] = {b.z, b.w};
    mma_m16n8k16(low, a, first, low);
    mma_m16n8k16(high, a, second, high);
}

// The same with sums in float16, which are 16 channels as a fragment.
__device__ __forceinline__ void product(Fragment& sum, const Fragment& a, const uint4& b) {
    const unsigned first[2] = {b.x, b.y}, second[2] = {b.z, b.w};
    mma_m16n8k16_half(sum, a, first);
    mma_m16n8k16_half(sum + 2, a, second);
}

// Sums of 32 channels begin as their bias, a lane's pairs 8j + 2t.
__device__ __forceinline__ void begin(Fragment (&sum)[2], const uint4& bias) {
    sum[0][0] = sum[0][1] = bias.x, sum[0][2] = sum[0][3] = bias.y;
    sum[1][0] = sum[1][1] = bias.z, sum[1][2] = sum[1][3] = bias.w;
}

// 32 channels of one pixel of a lane.
__device__ __forceinline__ uint4 of_pixel(const Fragment (&x)[2], int i) {
    return make_uint4(x[0][i], x[0][2 + i], x[1][i], x[1][2 + i]);
}

// Sums of 8 channels begin as their bias.
__device__ __forceinline__ void begin(float (&sum)[4], const float4* bias, int t) {
    const float4 own = bias[t];
    sum[0] = own.x, sum[1] = own.y, sum[2] = own.z, sum[3] = own.w;
}

// Features of 16 channels from sums, as a product takes them and as they lie in memory.
__device__ __forceinline__ void pack(Fragment& made, const float (&low)[4], const float (&high)[4]) {
    made[0] = packed(low[0], low[1]);
    made[1] = packed(low[2], low[3]);
    made[2] = packed(high[0], high[1]);
    made[3] = packed(high[2], high[3]);
}

__device__ __forceinline__ void write(float* at, float x, float y) { *reinterpret_cast<float2*>(at) = make_float2(x, y); }
__device__ __forceinline__ void write(__half* at, float x, float y) { *reinterpret_cast<unsigned*>(at) = packed(x, y); }

// Pixel shuffle of a lane's two pixels: channel (colour * FACTOR + dy) * FACTOR + dx, of which it has pairs along dx.
template <int FACTOR, int TILES_OF_8, typename T>
__device__ __forceinline__ void shuffle_out(T* output, const float (&sum)[TILES_OF_8][4], int row, int column, int t,
                                            const bool (&inside)[2], int height, int width) {
    for (int j = 0; j < TILES_OF_8; j++) {
        const int channel = 8 * j + 2 * t;
        if (channel >= 3 * FACTOR * FACTOR) continue;
        const int colour = channel / (FACTOR * FACTOR), dy = channel / FACTOR % FACTOR, dx = channel % FACTOR;
        T* to = output + ((size_t)(colour * height + row) * FACTOR + dy) * (FACTOR * width) + dx;
        for (int i = 0; i < 2; i++)
            if (inside[i]) write(to + (size_t)(column + i) * FACTOR, sum[j][2 * i], sum[j][2 * i + 1]);
    }
}

// What a lane takes from a picture's row, on its way from memory: it is asked for long before it is used.
struct Coming {
    float r[2], g[2], b[2];

    __device__ __forceinline__ void fetch(const float* picture, int row, const int (&columns)[2], int height, int width) {
        // Bytes in 32 bits from an address that all lanes share: that is one instruction.
        const char* line = reinterpret_cast<const char*>(picture + (size_t)min(max(row, 0), height - 1) * width);
        const size_t plane = (size_t)height * width * 4;
        for (int i = 0; i < 2; i++) {
            const unsigned at = 4 * columns[i];
            r[i] = __ldg(reinterpret_cast<const float*>(line + at));
            g[i] = __ldg(reinterpret_cast<const float*>(line + plane + at));
            b[i] = __ldg(reinterpret_cast<const float*>(line + 2 * plane + at));
        }
    }

    // As 3x3 products take it: 4 columns (the last without weight) of R, G and B, 0.
    __device__ __forceinline__ void arrive(Fragment& a) const {
        for (int i = 0; i < 2; i++) {
            a[i] = packed(r[i], g[i]);
            a[2 + i] = packed(b[i], 0.0f);
        }
    }

    // What float16 left of it.
    __device__ __forceinline__ void rest(Fragment& left, const Fragment& a) const {
        for (int i = 0; i < 2; i++) {
            const float2 rg = unpacked(a[i]), b0 = unpacked(a[2 + i]);
            left[i] = packed(r[i] - rg.x, g[i] - rg.y);
            left[2 + i] = packed(b[i] - b0.x, 0.0f);
        }
    }
};
