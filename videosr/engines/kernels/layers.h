/* The layers of a network, a row of results at a time; the depthwise ones two, the tail eight.

   Features lie as planes, a vector is LANES neighbours of a row. Of all convolutions but the depthwise ones, four
   outputs of three vectors are summed in registers, so that 12 products cost 7 loads. A depthwise one is bound by its
   loads, of which two rows share half.

   conv_mid and the tail are one convolution of 7x7, since nothing non-linear stands between them. Eight rows of its
   results are made of fourteen transformed rows, with 14 products in place of 56 (Winograd 1980, "Arithmetic complexity
   of computations"; Lavin and Gray 2016; points 0, +-1/4, +-1/2, +-3/4, +-1, +-2, +-3 and infinity). What that costs in
   precision is 0.002 codes of 8 bits. */

#ifndef VIDEOSR_LAYERS_H
#define VIDEOSR_LAYERS_H

#include "vectors.h"

#define STEP (3 * LANES)
#define LINE 16 /* floats of a line of the caches */
#define ROWS 8  /* of results that the tail makes at a time */
#define TAPS 14 /* rows that they are made of, transformed or not */
#define PAIRS 6 /* of points at which polynomials are multiplied, besides 0 and infinity */
#define PART 48 /* columns that go through the end of a block at a time, in the first cache; whole STEPs and LINEs */

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
    out += x;
    if (add) add += x;
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++, out += out_pitch) {
        for (int j = 0; j < vectors; j++)
            store(out + j * LANES, add ? acc[o][j] + load(add + j * LANES) : acc[o][j]);
        if (add) add += out_pitch;
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

/* Loops over a number of channels that the compiler knows are a fifth faster: those of our networks, times `more`. */
#define KNOWING(channels, more) \
    switch (channels) { \
    case 8 * more: DO(8 * more); break; \
    case 16 * more: DO(16 * more); break; \
    case 32 * more: DO(32 * more); break; \
    default: DO(channels); \
    }

APART void widen(const float *in, ptrdiff_t pitch, int channels, const float *w, const float *bias, float *out,
                 int outputs, int columns) {
#define DO(n) convolve(&in, pitch, n, 1, w, bias, out, pitch, outputs, NULL, columns)
    KNOWING(channels, 1)
#undef DO
}

APART void narrow(const float *in, int channels, const float *w, const float *bias, float *out, ptrdiff_t pitch,
                  int outputs, const float *add, int columns) {
#define DO(n) convolve(&in, PART, n, 1, w, bias, out, pitch, outputs, add, columns)
    KNOWING(channels, 2)
#undef DO
}

APART void convolve_3x3(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, const float *bias,
                        float *out, int outputs, int columns) {
    if (channels == 3)
        convolve(rows, pitch, 3, 3, w, bias, out, pitch, outputs, NULL, columns);
    else
        convolve(rows, pitch, channels, 3, w, bias, out, pitch, outputs, NULL, columns);
}

APART void add_3x3(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, float *out, int outputs,
                   int columns) {
    convolve(rows, pitch, channels, 3, w, NULL, out, pitch, outputs, out, columns);
}

/* Twice GELU, x + |x| - 2 |x| Phi(-|x|), the last of which is a polynomial within 2.5e-4. Additions and the lesser of
   two whole numbers, as which magnitudes can be compared, leave the units that multiply to the rest. NaN stays NaN. */
INLINE vec gelu_twice(vec x) {
    vec m = magnitude(x), a = (vec)lesser((whole)m, (whole)splat(3.84f)), t = splat(-0.00142619852f);
    t = t * a + 0.0216639936f;
    t = t * a - 0.124383189f;
    t = t * a + 0.303178547f;
    t = t * a - 0.115423955f;
    t = t * a - 0.76371181f;
    t = t * a + 0.997245252f;
    return (x + m) - a * t;
}

/* Two rows of a depthwise 3x3 convolution, from column `first` on, from four; of each channel `w` has nine factors and
   the bias. The results of a row lie PART apart, the second row's `below` behind the first's. `gelu`: twice GELU of
   them. */
INLINE void depthwise_of(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, float *out, ptrdiff_t below,
                         int first, int columns, const int gelu) {
    for (int c = 0; c < channels; c++, w += 10) {
        ptrdiff_t place = c * pitch + first - 1;
        const float *p = rows[0] + place, *q = rows[1] + place, *r = rows[2] + place, *s = rows[3] + place;
        float *o = out + c * PART, *u = o + below;
        vec k[9], bias = splat(w[9]);
        for (int i = 0; i < 9; i++) k[i] = splat(w[i]);
        for (int x = 0; x < columns; x += LINE) {
            __builtin_prefetch(p + x + pitch + 1); /* of the next channel */
            __builtin_prefetch(q + x + pitch + 1);
            __builtin_prefetch(r + x + pitch + 1);
            __builtin_prefetch(s + x + pitch + 1);
            for (int i = x; i < x + LINE; i += LANES) {
                vec a = bias, b = bias;
#define BOTH(row, tap, upper, lower) \
    { \
        vec v = load(row + i + tap); \
        KEEP(v); \
        a += k[upper] * v, b += k[lower] * v; \
    }
                BOTH(q, 0, 3, 0) BOTH(q, 1, 4, 1) BOTH(q, 2, 5, 2) BOTH(r, 0, 6, 3) BOTH(r, 1, 7, 4) BOTH(r, 2, 8, 5)
#undef BOTH
                a += k[0] * load(p + i), b += k[6] * load(s + i);
                a += k[1] * load(p + i + 1), b += k[7] * load(s + i + 1);
                a += k[2] * load(p + i + 2), b += k[8] * load(s + i + 2);
                store(o + i, a);
                store(u + i, b);
            }
        }
        for (int x = 0; gelu && x < columns; x += LANES) {
            store(o + x, gelu_twice(load(o + x)));
            store(u + x, gelu_twice(load(u + x)));
        }
    }
}

APART void depthwise_gelu(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, float *out,
                          ptrdiff_t below, int first, int columns) {
    depthwise_of(rows, pitch, channels, w, out, below, first, columns, 1);
}

APART void depthwise(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, float *out,
                     ptrdiff_t below, int first, int columns) {
    depthwise_of(rows, pitch, channels, w, out, below, first, columns, 0);
}

/* A row of a depthwise 3x3 convolution dilated by 3, from column `first` on, from the three rows that it sees. */
APART void depthwise_far(const float *const *rows, ptrdiff_t pitch, int channels, const float *w, float *out, int first,
                         int columns) {
    for (int c = 0; c < channels; c++, w += 10) {
        ptrdiff_t place = c * pitch + first - 3;
        const float *p = rows[0] + place, *q = rows[1] + place, *r = rows[2] + place;
        float *o = out + c * PART;
        vec k[9], bias = splat(w[9]);
        for (int i = 0; i < 9; i++) k[i] = splat(w[i]);
        for (int x = 0; x < columns; x += LANES) {
            vec a = bias + k[0] * load(p + x), b = k[3] * load(q + x);
            a += k[1] * load(p + x + 3), b += k[4] * load(q + x + 3);
            a += k[2] * load(p + x + 6), b += k[5] * load(q + x + 6);
            a += k[6] * load(r + x), b += k[7] * load(r + x + 3);
            store(o + x, a + (b + k[8] * load(r + x + 6)));
        }
    }
}

/* The products of the first half of `channels` and the second, within the limit, in place of the first. NaN stays
   NaN. */
APART void gated(float *rows, int channels, float limit, int columns) {
    const vec high = splat(limit), low = splat(-limit);
    for (int c = 0; c < channels / 2; c++) {
        float *a = rows + c * PART, *b = a + channels / 2 * PART;
        for (int x = 0; x < columns; x += LANES) store(a + x, most(low, least(high, load(a + x) * load(b + x))));
    }
}

/* The points but 0 and infinity, each with its negative; then the coefficients, without the highest, which is 1, of
   the product of all (x^2 - p^2) and of the products of all but one. */
static const float POINTS[PAIRS] = {0.25f, 0.5f, 0.75f, 1.0f, 2.0f, 3.0f};
static const float ALL[PAIRS] = {0.31640625f, -7.3212890625f, 41.001953125f, -81.5634765625f, 61.44140625f, -14.875f};
static const float BUT_ONE[PAIRS][PAIRS - 1] = {
    {-5.0625f, 36.140625f, -77.78125f, 60.515625f, -14.8125f},
    {-1.265625f, 24.22265625f, -67.1171875f, 57.78515625f, -14.625f},
    {-0.5625f, 12.015625f, -51.53125f, 53.390625f, -14.3125f},
    {-0.31640625f, 7.0048828125f, -33.9970703125f, 47.56640625f, -13.875f},
    {-0.0791015625f, 1.810546875f, -9.7978515625f, 17.94140625f, -10.875f},
    {-0.03515625f, 0.8095703125f, -4.4658203125f, 8.56640625f, -5.875f},
};

/* TAPS rows to those that products are taken with, B^T d: the coefficients of the products of all (x - p) but one, of
   which those without p and without -p are x (x + p) and x (x - p) times the same. `out`: the first; the next is
   `channels` rows on. */
APART void transform(const float *const *rows, ptrdiff_t pitch, int channels, float *out, int columns) {
    ptrdiff_t next = channels * pitch;
    for (int c = 0; c < channels; c++)
        for (int x = 0; x < columns; x += LANES) {
            vec d[TAPS];
            float *o = out + c * pitch + x;
            for (int i = 0; i < TAPS; i++) d[i] = load(rows[i] + c * pitch + x);
            vec first = d[TAPS - 2], last = d[TAPS - 1];
#pragma GCC unroll 6
            for (int k = 0; k < PAIRS; k++) first += ALL[k] * d[2 * k], last += ALL[k] * d[2 * k + 1];
            store(o, first);
            store(o + (TAPS - 1) * next, last);
#pragma GCC unroll 6
            for (int j = 0; j < PAIRS; j++) {
                vec even = d[TAPS - 2], odd = d[TAPS - 3];
#pragma GCC unroll 5
                for (int k = 0; k < PAIRS - 1; k++)
                    even += BUT_ONE[j][k] * d[2 * k + 2], odd += BUT_ONE[j][k] * d[2 * k + 1];
                store(o + (2 * j + 1) * next, even + POINTS[j] * odd);
                store(o + (2 * j + 2) * next, even - POINTS[j] * odd);
            }
        }
}

/* A^T: of a row of results and the sums at a point. */
static const float POWERS[ROWS][PAIRS] = {
    {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f},
    {0.25f, 0.5f, 0.75f, 1.0f, 2.0f, 3.0f},
    {0.0625f, 0.25f, 0.5625f, 1.0f, 4.0f, 9.0f},
    {0.015625f, 0.125f, 0.421875f, 1.0f, 8.0f, 27.0f},
    {0.00390625f, 0.0625f, 0.31640625f, 1.0f, 16.0f, 81.0f},
    {0.0009765625f, 0.03125f, 0.2373046875f, 1.0f, 32.0f, 243.0f},
    {0.000244140625f, 0.015625f, 0.177978515625f, 1.0f, 64.0f, 729.0f},
    {6.103515625e-05f, 0.0078125f, 0.13348388671875f, 1.0f, 128.0f, 2187.0f},
};

INLINE void tail_four(const float *rows, ptrdiff_t pitch, int channels, const float *w, ptrdiff_t step,
                      const float *bias, float *out, ptrdiff_t out_pitch, ptrdiff_t below, int x, const int vectors) {
    vec sums[TAPS][4][3];
    for (int i = 0; i < TAPS; i++) {
        const float *row = rows + i * channels * pitch;
        vec acc[4][3];
        for (int o = 0; o < 4; o++)
            for (int j = 0; j < vectors; j++) acc[o][j] = splat(0.0f);
        products(&row, pitch, channels, 1, 7, w + i * step, x, vectors, acc);
        for (int o = 0; o < 4; o++)
            for (int j = 0; j < vectors; j++) sums[i][o][j] = acc[o][j];
    }
    for (int o = 0; o < 4; o++)
        for (int j = 0; j < vectors; j++) {
            float *place = out + o * out_pitch + x + j * LANES;
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; odd++) {
                vec both[PAIRS];
                for (int k = 0; k < PAIRS; k++) {
                    vec a = sums[2 * k + 1][o][j], b = sums[2 * k + 2][o][j];
                    both[k] = odd ? a - b : a + b;
                }
#pragma GCC unroll 8
                for (int r = odd; r < ROWS; r += 2) {
                    vec sum = splat(bias[o]);
                    if (r == 0) sum += sums[0][o][j];
                    if (r == ROWS - 1) sum += sums[TAPS - 1][o][j];
                    for (int k = 0; k < PAIRS; k++) sum += POWERS[r][k] * both[k];
                    store(place + r * below, sum);
                }
            }
        }
}

INLINE void tail_of(const float *rows, ptrdiff_t pitch, int channels, const float *w, const float *bias, float *out,
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

/* ROWS rows of `outputs` channels, each `below` floats behind the one above it, from transformed rows. */
APART void tail(const float *rows, ptrdiff_t pitch, int channels, const float *w, const float *bias, float *out,
                ptrdiff_t below, int outputs, int columns) {
#define DO(n) tail_of(rows, pitch, n, w, bias, out, below, outputs, columns)
    KNOWING(channels, 1)
#undef DO
}

#endif
