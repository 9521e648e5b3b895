// CUDA C++ on the host: what a kernel's source needs in order to be compiled by g++ and run without a GPU.
//
// tests/cuda_host.py compiles a .cu file with this in front, and with this folder in place of CUDA's headers. The
// threads of a block are fibers on one system thread: each runs until it waits at a barrier or in a warp collective, and
// then another goes on, in an order that is fixed by a number. So runs repeat exactly, and a barrier that is missing
// shows in some order. Shared memory begins as NaN. Blocks run one after the other. What CUDA leaves undefined is an
// error with a message: a barrier that not all threads reach, collectives that lanes do not enter together, addresses
// outside buffers, vectors that are not aligned.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmath>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static __attribute__((section("cuda_shared")))
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))

// Vectors

#define CUDA_HOST_VECTORS(T, name, at1, at2, at4)                                                             \
    struct at1 name##1 { T x; };                                                                              \
    struct at2 name##2 { T x, y; };                                                                           \
    struct name##3 { T x, y, z; };                                                                            \
    struct at4 name##4 { T x, y, z, w; };                                                                     \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                         \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                 \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_HOST_VECTORS(signed char, char, alignas(1), alignas(2), alignas(4))
CUDA_HOST_VECTORS(unsigned char, uchar, alignas(1), alignas(2), alignas(4))
CUDA_HOST_VECTORS(short, short, alignas(2), alignas(4), alignas(8))
CUDA_HOST_VECTORS(unsigned short, ushort, alignas(2), alignas(4), alignas(8))
CUDA_HOST_VECTORS(int, int, alignas(4), alignas(8), alignas(16))
CUDA_HOST_VECTORS(unsigned, uint, alignas(4), alignas(8), alignas(16))
CUDA_HOST_VECTORS(float, float, alignas(4), alignas(8), alignas(16))
CUDA_HOST_VECTORS(double, double, alignas(8), alignas(16), alignas(16))
#undef CUDA_HOST_VECTORS

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

#include "fibers.h"

// Barriers and collectives

static inline void __syncthreads() { cuda_host::barrier(); }
static inline int __syncthreads_count(int vote) {
    cuda_host::votes += vote != 0;
    cuda_host::barrier();
    return cuda_host::verdict;
}
static inline int __syncthreads_or(int vote) { return __syncthreads_count(vote) != 0; }
static inline int __syncthreads_and(int vote) { return __syncthreads_count(vote) == (int)cuda_host::threads; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    cuda_host::collective(mask, nullptr, [](unsigned, void**) {});
}

namespace cuda_host {

template <class T>
struct Shuffle {
    T value, result;
    int source;
};

template <class T>
T shuffle(unsigned mask, T value, int source) {
    Shuffle<T> own{value, value, source};
    collective(mask, &own, [](unsigned mask, void** slots) {
        for (int i = 0; i < 32; i++) {
            if (!(mask >> i & 1)) continue;
            auto& to = *(Shuffle<T>*)slots[i];
            if (mask >> to.source & 1) to.result = ((Shuffle<T>*)slots[to.source])->value;
            else memset((void*)&to.result, 0xff, sizeof(T));  // CUDA leaves it undefined
        }
    });
    return own.result;
}

struct Vote {
    bool yes;
    unsigned result;
};

template <class T, class F>
T reduce(unsigned mask, T value, F) {
    Shuffle<T> own{value, value, 0};
    collective(mask, &own, [](unsigned mask, void** slots) {
        bool first = true;
        T total{};
        for (int i = 0; i < 32; i++) {
            if (!(mask >> i & 1)) continue;
            const T next = ((Shuffle<T>*)slots[i])->value;
            total = first ? next : F{}(total, next);
            first = false;
        }
        for (int i = 0; i < 32; i++)
            if (mask >> i & 1) ((Shuffle<T>*)slots[i])->result = total;
    });
    return own.result;
}

/// Of a segment of `width` lanes.
static inline int segment(int width) { return (int)current->lane & ~(width - 1); }

}  // namespace cuda_host

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return cuda_host::shuffle(mask, value, cuda_host::segment(width) + (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32) {
    const int source = (int)cuda_host::current->lane ^ flip;
    return cuda_host::shuffle(mask, value, source >= cuda_host::segment(width) + width ? (int)cuda_host::current->lane : source);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int source = (int)cuda_host::current->lane - (int)by;
    return cuda_host::shuffle(mask, value, source < cuda_host::segment(width) ? (int)cuda_host::current->lane : source);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int source = (int)(cuda_host::current->lane + by);
    return cuda_host::shuffle(mask, value, source >= cuda_host::segment(width) + width ? (int)cuda_host::current->lane : source);
}
static inline unsigned __ballot_sync(unsigned mask, int vote) {
    cuda_host::Vote own{vote != 0, 0};
    cuda_host::collective(mask, &own, [](unsigned mask, void** slots) {
        unsigned all = 0;
        for (int i = 0; i < 32; i++)
            if (mask >> i & 1 && ((cuda_host::Vote*)slots[i])->yes) all |= 1u << i;
        for (int i = 0; i < 32; i++)
            if (mask >> i & 1) ((cuda_host::Vote*)slots[i])->result = all;
    });
    return own.result;
}
static inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
static inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) == mask; }
struct cuda_host_plus { template <class T> T operator()(T a, T b) const { return a + b; } };
struct cuda_host_least { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct cuda_host_most { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };
template <class T> T __reduce_add_sync(unsigned mask, T value) { return cuda_host::reduce(mask, value, cuda_host_plus{}); }
template <class T> T __reduce_min_sync(unsigned mask, T value) { return cuda_host::reduce(mask, value, cuda_host_least{}); }
template <class T> T __reduce_max_sync(unsigned mask, T value) { return cuda_host::reduce(mask, value, cuda_host_most{}); }

// Memory

template <class T> T __ldg(const T* at) { return *at; }
template <class T> T __ldcs(const T* at) { return *at; }
template <class T> void __stcs(T* at, T value) { *at = value; }
template <class T> T atomicExch(T* at, std::common_type_t<T> value) { T old = *at; *at = value; return old; }
template <class T> T atomicAdd(T* at, std::common_type_t<T> value) { return atomicExch(at, T(*at + value)); }
template <class T> T atomicSub(T* at, std::common_type_t<T> value) { return atomicExch(at, T(*at - value)); }
template <class T> T atomicMax(T* at, std::common_type_t<T> value) { return atomicExch(at, *at < value ? value : *at); }
template <class T> T atomicMin(T* at, std::common_type_t<T> value) { return atomicExch(at, value < *at ? value : *at); }
template <class T> T atomicOr(T* at, std::common_type_t<T> value) { return atomicExch(at, T(*at | value)); }
template <class T> T atomicAnd(T* at, std::common_type_t<T> value) { return atomicExch(at, T(*at & value)); }
template <class T> T atomicCAS(T* at, std::common_type_t<T> was, std::common_type_t<T> value) {
    return *at == was ? atomicExch(at, value) : *at;
}

// Arithmetic

#define __expf expf  // glibc has an __expf of its own
#define __logf logf

template <class A, class B> std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return std::fmin(T(a), T(b));
    else return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B> std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return std::fmax(T(a), T(b));
    else return T(a) < T(b) ? T(b) : T(a);
}
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1 / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float rsqrtf(float a) { return 1 / sqrtf(a); }
static inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1) : 0; }
static inline int __float2int_rn(float a) { return (int)rintf(a); }
static inline int __float2int_rd(float a) { return (int)floorf(a); }
static inline int __float2int_rz(float a) { return (int)a; }
static inline unsigned __float2uint_rn(float a) { return a > 0 ? (unsigned)rintf(a) : 0; }
static inline float __int2float_rn(int a) { return (float)a; }
static inline float __uint2float_rn(unsigned a) { return (float)a; }
template <class To, class From> To cuda_host_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "sizes differ");
    To to;
    memcpy((void*)&to, (const void*)&from, sizeof to);
    return to;
}
static inline unsigned __float_as_uint(float a) { return cuda_host_as<unsigned>(a); }
static inline int __float_as_int(float a) { return cuda_host_as<int>(a); }
static inline float __uint_as_float(unsigned a) { return cuda_host_as<float>(a); }
static inline float __int_as_float(int a) { return cuda_host_as<float>(a); }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __clz(int a) { return a ? __builtin_clz((unsigned)a) : 32; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
    const uint64_t both = (uint64_t)b << 32 | a;
    unsigned made = 0;
    for (int i = 0; i < 4; i++) made |= (unsigned)(both >> 8 * (select >> 4 * i & 7) & 255) << 8 * i;
    return made;
}
