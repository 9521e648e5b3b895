/* The layers of a network, a row of results at a time; the depthwise ones two, the tail four.

   Features lie as planes, a vector is LANES neighbours of a row. Of all convolutions but the depthwise ones, four
   outputs of three vectors are summed in registers, so that 12 products cost 7 loads. A depthwise one is bound by its
   loads, of which two rows share half.

   conv_mid and the tail are one convolution of 7x7, since nothing non-linear stands between them. Four rows of its
   results are made of ten transformed rows, with 10 products in place of 28 (Winograd 1980, "Arithmetic complexity of
   computations"; Lavin and Gray 2016; points 0, +-1/2, +-1, +-2, +-4 and infinity). What that costs in precision is
   0.002 codes of 8 bits. */

#ifndef VIDEOSR_LAYERS_H
#define VIDEOSR_LAYERS_H

#include "vectors.h"

#define STEP (3 * LANES)
#define ROWS 4  /* of results that the tail makes at a time */
#define TAPS 10 /* rows that they are made of, transformed or not */
#define PART 48 /* columns that go through the end of a block at a time, in the first cache; a multiple of STEP */

/* Sums of products: four outputs of `vectors` vectors from column x on. `w` goes by row, channel, column, output.
   `start` and `add` (with `pitch`): what is added, a number an output or a row an output; NULL: nothing. */
INLINE const float *products(const float *const *rows, ptrdiff_t pitch, int channels, const int high, const int wide,
                             const float *w, int x, const int vectors, vec acc[4][3]) {
    for (int y = 0; y < high; y++) {
        const float *p = rows[y] + x - wide / 2;
        for (int c = 0; c < channels; c++, p += pitch) {
#pragma GCC unroll 7
            for (int k = 0; k < wide; k++, w += 4) {
                vec v[3];
                for (int j = 0; j < vectors; j++) v[j] = load(p + k + j * LANES);
                for (int o = 0; o < 4; o++) {
                    vec f = splat(w[o]);
                    for (int j = 0; j < vectors; j++) acc[o][j] += f * v[j];
                }
            }
        }
    }
    return w;
}

INLINE void four(const float *const *rows, ptrdiff_t pitch, int channels, const int size, const float *w,
                 const float *start, float *out, ptrdiff_t out_pitch, const float *add, int x, const int vectors) {
    vec acc[4][3];
    for (int o = 0; o < 4; o++)
        for (int j = 0; j < vectors; j++) acc[o][j] = splat(start ? start[o] : 0.0f);
    products(rows, pitch, channels, size, size, w, x, vectors, acc);
    for (int o = 0; o < 4; o++)
        for (int j = 0; j < vectors; j++) {
            ptrdiff_t place = o * out_pitch + x + j * LANES;
            store(out + place, add ? acc[o][j] + load(add + place) : acc[o][j]);
        }
}

/* A convolution: a row of `outputs` channels, `columns` wide, from `size` rows. */
INLINE void convolve(const float *const *rows, ptrdiff_t pitch, int channels, const int size, const float *w,
                     const float *start, float *out, ptrdiff_t out_pitch, int outputs, const float *add, int columns) {
    int step = size * size * channels * 4;
    for (int x = 0; x < columns; x += STEP)
        for (int o = 0; o < outputs; o += 4) {
            const float *factors = w + o / 4 * step, *first = start ? start + o : NULL;
            const float *more = add ? add + o * out_pitch : NULL;
            float *place = out + o * out_pitch;
            if (columns - x >= STEP)
                four(rows, pitch, channels, size, factors, first, place, out_pitch, more, x, 3);
            else if (columns - x > LANES)
                four(rows, pitch, channels, size, factors, first, place, out_pitch, more, x, 2);
            else
                four(rows, pitch, channels, size, factors, first, place, out_pitch, more, x, 1);
        }
}

APART void widen(const float *in, ptrdiff_t pitch, int channels, const float *w, const float *bias, float *out,
                 int outputs, int columns) {
    convolve(&in, pitch, channels, 1, w, bias, out, pitch, outputs, NULL, columns);
}

APART void narrow(const float *in, int channels, const float *w, const float *bias, float *out, ptrdiff_t pitch,
                  int outputs, const float *add, int columns) {
    convolve(&in, PART, channels, 1, w, bias, out, pitch, outputs, add, columns);
}

APART void convolve_3x3(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, const float *bias,
                        float *out, int outputs, int columns) {
    convolve(rows, pitch, channels, 3, w, bias, out, pitch, outputs, NULL, columns);
}

APART void add_3x3(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, float *out, int outputs,
                   int columns) {
    convolve(rows, pitch, channels, 3, w, NULL, out, pitch, outputs, out, columns);
}

/* The polynomial of `openvino_rewrite`, within 2.1e-4 of x * Phi(x). NaN stays NaN. */
INLINE vec gelu(vec x) {
    vec y = most(splat(-4.0f), least(splat(4.0f), x)), s = y * y, t = splat(2.24159599e-08f);
    t = t * s - 1.58043584e-06f;
    t = t * s + 4.76150944e-05f;
    t = t * s - 0.000811080004f;
    t = t * s + 0.00876137591f;
    t = t * s - 0.0645623381f;
    t = t * s + 0.397895734f;
    return x * (t * y + 0.5f);
}

/* Two rows of a depthwise 3x3 convolution and GELU, from column `first` on, from four; of each channel `w` has nine
   factors and the bias. The second row of results lies behind all channels of the first. */
APART void depthwise(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, float *out, int first,
                     int columns) {
    for (int c = 0; c < channels; c++, w += 10) {
        ptrdiff_t place = c * pitch + first - 1;
        const float *p = rows[0] + place, *q = rows[1] + place, *r = rows[2] + place, *s = rows[3] + place;
        float *o = out + c * PART, *u = o + channels * PART;
        vec k[9], bias = splat(w[9]);
        for (int i = 0; i < 9; i++) k[i] = splat(w[i]);
        for (int x = 0; x < columns; x += LANES) {
            __builtin_prefetch(p + x + pitch); /* of the next channel */
            __builtin_prefetch(q + x + pitch);
            __builtin_prefetch(r + x + pitch);
            __builtin_prefetch(s + x + pitch);
            vec v = load(q + x), a = bias + k[3] * v, b = bias + k[0] * v;
            v = load(q + x + 1), a += k[4] * v, b += k[1] * v;
            v = load(q + x + 2), a += k[5] * v, b += k[2] * v;
            v = load(r + x), a += k[6] * v, b += k[3] * v;
            v = load(r + x + 1), a += k[7] * v, b += k[4] * v;
            v = load(r + x + 2), a += k[8] * v, b += k[5] * v;
            a += k[0] * load(p + x), b += k[6] * load(s + x);
            a += k[1] * load(p + x + 1), b += k[7] * load(s + x + 1);
            a += k[2] * load(p + x + 2), b += k[8] * load(s + x + 2);
            store(o + x, a);
            store(u + x, b);
        }
        for (int x = 0; x < columns; x += LANES) {
            store(o + x, gelu(load(o + x)));
            store(u + x, gelu(load(u + x)));
        }
    }
}

/* The coefficients of x (x + p) (x^2 - q)..., of all q but p^2 among the squares of the points, times nine samples, and
   those of x (x - p)... The factors (x^2 - q)... are x^6 + c2 x^4 + c1 x^2 + c0. */
INLINE void pair(const vec *d, float c0, float c1, float c2, float p, float *out, ptrdiff_t next) {
    vec even = d[7] + c2 * d[5] + c1 * d[3] + c0 * d[1], odd = d[6] + c2 * d[4] + c1 * d[2] + c0 * d[0];
    store(out, even + p * odd);
    store(out + next, even - p * odd);
}

/* Ten rows to the ten that products are taken with, B^T d. `out`: the first; the next is `channels` rows on. */
APART void transform(const float *const *rows, ptrdiff_t pitch, int channels, float *out, int columns) {
    ptrdiff_t next = channels * pitch;
    for (int c = 0; c < channels; c++)
        for (int x = 0; x < columns; x += LANES) {
            vec d[TAPS];
            for (int i = 0; i < TAPS; i++) d[i] = load(rows[i] + c * pitch + x);
            float *o = out + c * pitch + x;
            store(o, d[8] - 21.25f * d[6] + 89.25f * d[4] - 85.0f * d[2] + 16.0f * d[0]);
            pair(d + 1, -64.0f, 84.0f, -21.0f, 0.5f, o + next, next);
            pair(d + 1, -16.0f, 69.0f, -20.25f, 1.0f, o + 3 * next, next);
            pair(d + 1, -4.0f, 20.25f, -17.25f, 2.0f, o + 5 * next, next);
            pair(d + 1, -1.0f, 5.25f, -5.25f, 4.0f, o + 7 * next, next);
            store(o + 9 * next, d[9] - 21.25f * d[7] + 89.25f * d[5] - 85.0f * d[3] + 16.0f * d[1]);
        }
}

/* What becomes of the sums behind `transform` in the four rows of results, A^T: powers of the points. */
static const float GATHER[ROWS][TAPS] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 0},
    {0, 0.5f, -0.5f, 1, -1, 2, -2, 4, -4, 0},
    {0, 0.25f, 0.25f, 1, 1, 4, 4, 16, 16, 0},
    {0, 0.125f, -0.125f, 1, -1, 8, -8, 64, -64, 1},
};

INLINE void tail_four(const float *rows, ptrdiff_t pitch, int channels, const float *w, ptrdiff_t step,
                      const float *bias, float *out, ptrdiff_t out_pitch, ptrdiff_t below, int x, const int vectors) {
    for (int i = 0; i < TAPS; i++) {
        const float *row = rows + i * channels * pitch;
        vec acc[4][3];
        for (int o = 0; o < 4; o++)
            for (int j = 0; j < vectors; j++) acc[o][j] = splat(0.0f);
        products(&row, pitch, channels, 1, 7, w + i * step, x, vectors, acc);
        for (int r = 0; r < ROWS; r++)
            for (int o = 0; o < 4; o++)
                for (int j = 0; j < vectors; j++) {
                    float *p = out + r * below + o * out_pitch + x + j * LANES;
                    store(p, (i ? load(p) : splat(bias[o])) + splat(GATHER[r][i]) * acc[o][j]);
                }
    }
}

/* Four rows of `outputs` channels, each `below` floats behind the one above it, from transformed rows. */
APART void tail(const float *rows, ptrdiff_t pitch, int channels, const float *w, const float *bias, float *out,
                ptrdiff_t below, int outputs, int columns) {
    ptrdiff_t group = 7 * channels * 4, step = group * outputs / 4;
    for (int x = 0; x < columns; x += STEP)
        for (int o = 0; o < outputs; o += 4) {
            const float *factors = w + o / 4 * group;
            float *place = out + o * pitch;
            if (columns - x >= STEP)
                tail_four(rows, pitch, channels, factors, step, bias + o, place, pitch, below, x, 3);
            else if (columns - x > LANES)
                tail_four(rows, pitch, channels, factors, step, bias + o, place, pitch, below, x, 2);
            else
                tail_four(rows, pitch, channels, factors, step, bias + o, place, pitch, below, x, 1);
        }
}

#endif
