// Tensor cores on the host, in place of videosr/engines/kernels/tensor.cuh: fragments as the PTX manual lays them out
// over the lanes of a warp (mma.sync.m16n8k16, ldmatrix).
#pragma once

#include <cuda_fp16.h>

namespace cuda_host {

struct Mma {
    float* d;
    const unsigned *a, *b;
    const float* c;
};

static inline float half_at(unsigned pair, int which) { return __half2float(__ushort_as_half(pair >> 16 * which)); }

struct Ldmatrix {
    const void* row;
    unsigned* made;
};

template <int N, bool TRANSPOSED>
static void load_matrices(unsigned, void** slots) {
    for (int m = 0; m < N; m++) {
        unsigned short matrix[8][8];
        for (int r = 0; r < 8; r++) memcpy(matrix[r], ((Ldmatrix*)slots[8 * m + r])->row, 16);
        for (int lane = 0; lane < 32; lane++) {
            const int row = lane / 4, column = lane % 4 * 2;
            const unsigned low = TRANSPOSED ? matrix[column][row] : matrix[row][column];
            const unsigned high = TRANSPOSED ? matrix[column + 1][row] : matrix[row][column + 1];
            ((Ldmatrix*)slots[lane])->made[m] = low | high << 16;
        }
    }
}

}  // namespace cuda_host

/// d = a b + c: a 16x16 by rows, b 16x8 by columns, float16; c and d 16x8, float.
static inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4]) {
    cuda_host::Mma own{d, a, b, c};
    cuda_host::collective(0xffffffffu, &own, [](unsigned, void** slots) {
        float left[16][16], right[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const auto& from = *(cuda_host::Mma*)slots[lane];
            const int group = lane / 4, inner = lane % 4;
            for (int i = 0; i < 8; i++)
                left[group + 8 * (i / 2 % 2)][inner * 2 + i % 2 + 8 * (i / 4)] = cuda_host::half_at(from.a[i / 2], i % 2);
            for (int i = 0; i < 4; i++)
                right[inner * 2 + i % 2 + 8 * (i / 2)][group] = cuda_host::half_at(from.b[i / 2], i % 2);
        }
        for (int lane = 0; lane < 32; lane++) {
            const auto& to = *(cuda_host::Mma*)slots[lane];
            for (int i = 0; i < 4; i++) {
                const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
                float total = 0;
                for (int k = 0; k < 16; k++) total += left[row][k] * right[k][column];
                to.d[i] = to.c[i] + total;
            }
        }
    });
}

/// The same with c and d, which are one, in float16: d[0] row g, d[1] row g + 8, columns 2t and 2t + 1.
static inline void mma_m16n8k16_half(unsigned* d, const unsigned (&a)[4], const unsigned (&b)[2]) {
    float sum[4];
    for (int i = 0; i < 4; i++) sum[i] = cuda_host::half_at(d[i / 2], i % 2);
    mma_m16n8k16(sum, a, b, sum);
    for (int i = 0; i < 2; i++) {
        const __half2 both = __floats2half2_rn(sum[2 * i], sum[2 * i + 1]);
        memcpy(d + i, &both, 4);
    }
}

/// N 8x8 matrices of 16-bit values; lane i gives the address of row i % 8 of matrix i / 8 (16 bytes, aligned).
template <int N, bool TRANSPOSED = false>
static inline void ldmatrix(unsigned (&made)[N], const void* row) {
    if ((int)cuda_host::current->lane < 8 * N && (uintptr_t)row % 16) cuda_host::fail("ldmatrix: a row is not aligned");
    cuda_host::Ldmatrix own{row, made};
    cuda_host::collective(0xffffffffu, &own, cuda_host::load_matrices<N, TRANSPOSED>);
}
