// Tensor cores.
#pragma once

// d = a b + c: a 16x16 by rows and b 16x8 by columns in float16, c and d 16x8 in float32, each lane of the warp with its
// part of them (PTX ISA, "Matrix fragments for mma.m16n8k16 with .f16"). With g = lane / 4, t = lane % 4:
//     a[0] row g, columns 2t and 2t + 1; a[1] row g + 8; a[2], a[3] the same rows, columns 2t + 8 and 2t + 9
//     b[0] rows 2t and 2t + 1, column g; b[1] rows 2t + 8 and 2t + 9
//     c[0], c[1] row g, columns 2t and 2t + 1; c[2], c[3] row g + 8; d likewise
// c and d may be the same. All lanes have to be there: hence `volatile`, which keeps it out of branches.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                             const float (&c)[4]) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else  // Turing takes half of it at a time
    float first[4];
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(first[0]), "=f"(first[1]), "=f"(first[2]), "=f"(first[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[2]), "r"(a[3]), "r"(b[1]), "f"(first[0]), "f"(first[1]), "f"(first[2]), "f"(first[3]));
#endif
}

// The same with sums in float16: d[0] row g, columns 2t and 2t + 1; d[1] row g + 8. That is what a wants of 8 columns, so
// results are fragments without another instruction. `d` is c before.
__device__ __forceinline__ void mma_m16n8k16_half(unsigned* d, const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
                 : "+r"(d[0]), "+r"(d[1])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, %1};"
                 : "+r"(d[0]), "+r"(d[1])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, %1};"
                 : "+r"(d[0]), "+r"(d[1])
                 : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

// Four 8x8 matrices of float16 from shared memory, as a 16x16 a wants them: lane i gives the address of row i % 8 of
// matrix i / 8, 16 bytes (PTX ISA, ldmatrix). Matrices 0 and 1 are rows 0-7 and 8-15 of columns 0-7, 2 and 3 of 8-15.
__device__ __forceinline__ void ldmatrix(unsigned (&made)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(made[0]), "=r"(made[1]), "=r"(made[2]), "=r"(made[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row)));
}
