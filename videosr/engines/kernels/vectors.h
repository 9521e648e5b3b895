/* Vectors of LANES floats, by what GCC and Clang have in common; only the lesser and the greater of two need more. Of
   NaN and b that is b. */

#ifndef VIDEOSR_VECTORS_H
#define VIDEOSR_VECTORS_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef int32_t whole __attribute__((vector_size(4 * LANES)));

INLINE vec load(const float *p) { return *(const loose *)p; }
INLINE void store(float *p, vec v) { *(loose *)p = v; }
INLINE vec splat(float x) { return x - (vec){0}; } /* x + 0 would have to turn -0 into 0 */

INLINE vec magnitude(vec x) { return (vec)((whole)x & 0x7FFFFFFF); }

#if LANES == 16 && defined(__AVX512F__)
INLINE vec least(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vec most(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE whole lesser(whole a, whole b) { return (whole)_mm512_min_epi32((__m512i)a, (__m512i)b); }
#define KEEP(v) __asm__("" : "+v"(v))
#elif LANES == 8
INLINE vec least(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vec most(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE whole lesser(whole a, whole b) { return (whole)_mm256_min_epi32((__m256i)a, (__m256i)b); }
#define KEEP(v) __asm__("" : "+x"(v)) /* in a register: GCC would load it again for every use */
#else /* vectors wider than the CPU's, to test them without one */
INLINE vec least(vec a, vec b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] < b[i] ? a[i] : b[i];
    return a;
}
INLINE vec most(vec a, vec b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
INLINE whole lesser(whole a, whole b) {
    for (int i = 0; i < LANES; i++) a[i] = a[i] < b[i] ? a[i] : b[i];
    return a;
}
#define KEEP(v)
#endif

#endif
