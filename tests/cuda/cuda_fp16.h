// Half precision: what kernels use of CUDA's cuda_fp16.h.
#pragma once

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace cuda_host {

static inline unsigned short half_of(float value) {  // to nearest, ties to even
    const unsigned bits = cuda_host_as<unsigned>(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return 0x7fff;  // NaN, as the GPU writes it
    if (rest >= 0x477ff000) return sign | 0x7c00;
    if (rest < 0x38800000) {  // subnormal: the sum rounds to multiples of 2^-24
        return sign | (cuda_host_as<unsigned>(fabsf(value) + 0.5f) - 0x3f000000);
    }
    return sign | ((rest + 0xfff + (rest >> 13 & 1) - 0x38000000) >> 13);
}

static inline float float_of(unsigned short half) {
    const unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, rest = half & 0x3ff;
    if (exponent == 31) return cuda_host_as<float>(sign | 0x7f800000 | rest << 13);
    if (exponent) return cuda_host_as<float>(sign | (exponent + 112) << 23 | rest << 13);
    const float small = ldexpf((float)rest, -24);
    return sign ? -small : small;
}

}  // namespace cuda_host

struct __half;
static inline __half __float2half_rn(float value);
static inline float __half2float(__half value);
struct __half {
    unsigned short bits;
    __half() = default;
    __half(float value) { *this = __float2half_rn(value); }
    operator float() const { return __half2float(*this); }
};
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;

static inline __half __float2half_rn(float value) {
    __half made;
#ifdef __F16C__
    made.bits = value != value ? 0x7fff : (unsigned short)_cvtss_sh(value, 0);
#else
    made.bits = cuda_host::half_of(value);
#endif
    return made;
}
static inline float __half2float(__half value) {
#ifdef __F16C__
    return _cvtsh_ss(value.bits);
#else
    return cuda_host::float_of(value.bits);
#endif
}
static inline __half __float2half(float value) { return __float2half_rn(value); }
static inline __half __ushort_as_half(unsigned short bits) { __half made; made.bits = bits; return made; }
static inline unsigned short __half_as_ushort(__half value) { return value.bits; }
static inline __half2 __halves2half2(__half x, __half y) { __half2 made; made.x = x; made.y = y; return made; }
static inline __half2 __half2half2(__half x) { return __halves2half2(x, x); }
static inline __half2 __floats2half2_rn(float x, float y) { return __halves2half2(__half(x), __half(y)); }
static inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
static inline __half2 __float2half2_rn(float x) { return __floats2half2_rn(x, x); }
static inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
static inline float __low2float(__half2 v) { return __half2float(v.x); }
static inline float __high2float(__half2 v) { return __half2float(v.y); }
static inline __half __low2half(__half2 v) { return v.x; }
static inline __half __high2half(__half2 v) { return v.y; }
// Sums, products and quotients of halves rounded to float first are rounded the same; the fused ones go by double.
#define CUDA_HOST_HALF(name, expression)                                                                             \
    static inline __half __h##name(__half a, __half b) {                                                             \
        const float x = __half2float(a), y = __half2float(b);                                                        \
        return __half(expression);                                                                                   \
    }                                                                                                                \
    static inline __half2 __h##name##2(__half2 a, __half2 b) {                                                       \
        return __halves2half2(__h##name(a.x, b.x), __h##name(a.y, b.y));                                             \
    }
CUDA_HOST_HALF(add, x + y)
CUDA_HOST_HALF(sub, x - y)
CUDA_HOST_HALF(mul, x * y)
CUDA_HOST_HALF(min, fminf(x, y))
CUDA_HOST_HALF(max, fmaxf(x, y))
static inline __half2 __hmin2_nan(__half2 a, __half2 b) {
    const __half2 least = __hmin2(a, b), sum = __hadd2(a, b);  // infinities of both signs are not met here
    return __halves2half2(__half2float(sum.x) != __half2float(sum.x) ? sum.x : least.x,
                          __half2float(sum.y) != __half2float(sum.y) ? sum.y : least.y);
}
static inline __half2 __hmax2_nan(__half2 a, __half2 b) {
    const __half2 most = __hmax2(a, b), sum = __hadd2(a, b);
    return __halves2half2(__half2float(sum.x) != __half2float(sum.x) ? sum.x : most.x,
                          __half2float(sum.y) != __half2float(sum.y) ? sum.y : most.y);
}
#undef CUDA_HOST_HALF
static inline __half __hdiv(__half a, __half b) { return __half(__half2float(a) / __half2float(b)); }
static inline __half __hfma(__half a, __half b, __half c) {
    return __half((float)((double)__half2float(a) * __half2float(b) + __half2float(c)));
}
static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return __halves2half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
static inline __half operator+(__half a, __half b) { return __hadd(a, b); }
static inline __half operator-(__half a, __half b) { return __hsub(a, b); }
static inline __half operator*(__half a, __half b) { return __hmul(a, b); }
static inline __half operator/(__half a, __half b) { return __hdiv(a, b); }
static inline __half2 operator+(__half2 a, __half2 b) { return __hadd2(a, b); }
static inline __half2 operator-(__half2 a, __half2 b) { return __hsub2(a, b); }
static inline __half2 operator*(__half2 a, __half2 b) { return __hmul2(a, b); }
static inline __half __hneg(__half a) { return __ushort_as_half(a.bits ^ 0x8000); }
static inline __half2 __hneg2(__half2 a) { return __halves2half2(__hneg(a.x), __hneg(a.y)); }
static inline __half __habs(__half a) { return __ushort_as_half(a.bits & 0x7fff); }
static inline __half2 __habs2(__half2 a) { return __halves2half2(__habs(a.x), __habs(a.y)); }
static inline bool __hisnan(__half a) { return (a.bits & 0x7fff) > 0x7c00; }
static inline bool __hisinf(__half a) { return (a.bits & 0x7fff) == 0x7c00; }
