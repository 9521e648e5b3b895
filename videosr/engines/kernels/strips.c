/* A network of Nano blocks over a strip of a picture, on a CPU: planes in, planes out.

   A strip is a band of columns, as high as the picture. It is made from top to bottom, two rows at a time, through all
   layers: each layer keeps the few rows that the next one reads in a ring, so that what is under way stays in the
   caches and no row is made twice. Columns are: each layer sees `reach` more of
   them than it needs on either side, and what they become is worth less with every layer.

   Features lie as planes, a vector is LANES neighbours of a row. Of all convolutions but the depthwise ones, four
   outputs of three vectors are summed in registers, so that 12 products cost 7 loads.

   conv_mid and the tail are one convolution of 7x7, since nothing non-linear stands between them. Four rows of its
   results are made of ten transformed rows, with 10 products in place of 28 (Winograd 1980, "Arithmetic complexity of
   computations"; Lavin and Gray 2016; points 0, +-1/2, +-1, +-2, +-4 and infinity). What that costs in precision is
   0.002 codes of 8 bits.

   Beyond its edges the picture's edge samples are repeated, without end.

   This file is compiled once for each width of vectors; FUNCTION gives names their suffix. */

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))
#define STEP (3 * LANES)
#define ROWS 4  /* of results that the tail makes at a time */
#define TAPS 10 /* rows that they are made of, transformed or not */
#define PART 48 /* columns that go through the end of a block at a time, in the first cache; a multiple of STEP */
#define RIM 16 /* floats beside a row of a ring that are read and never used */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load(const float *p) { return *(const loose *)p; }
INLINE void store(float *p, vec v) { *(loose *)p = v; }
INLINE vec splat(float x) { return x - (vec){0}; } /* x + 0 would have to turn -0 into 0 */

#if LANES == 16
INLINE vec least(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vec most(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
#else
INLINE vec least(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vec most(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
#endif

/* Rows of features: channel c of row i begins at `at(ring, i) + c * pitch`. */
struct ring {
    float *memory;
    ptrdiff_t pitch;
    int channels, slots;
};

INLINE float *at(const struct ring *ring, int i) {
    int slot = (i + 64 * ring->slots) % ring->slots; /* the first rows have negative numbers */
    return ring->memory + (ptrdiff_t)slot * ring->channels * ring->pitch + RIM;
}

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

/* x (x + p) (x^2 - q)... of all q but p^2 among the squares of the points, c2 x^4 + ... + c0 what the last factors make of
   x^2: its coefficients times ten samples, and those of x (x - p) ...; samples from the second on. */
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

/* `count` samples of a row from column `first` on, edges repeated, times `gain` plus `offset`. */
INLINE void fetch(const struct plane *plane, int row, int first, int count, float gain, float offset, float *out) {
    row = row < 0 ? 0 : row >= plane->rows ? plane->rows - 1 : row;
    const char *line = (const char *)plane->data + row * plane->stride;
    int left = first < 0 ? -first : 0, right = first + count > plane->columns ? plane->columns - first : count;
    left = left < count ? left : count;
    right = right > left ? right : left;
#define COPY(type) \
    for (int i = left; i < right; i++) out[i] = (float)((const type *)line)[first + i] * gain + offset; \
    for (int i = 0; i < left; i++) out[i] = (float)((const type *)line)[0] * gain + offset; \
    for (int i = right; i < count; i++) out[i] = (float)((const type *)line)[plane->columns - 1] * gain + offset;
    if (plane->kind == U8) {
        COPY(uint8_t)
    } else if (plane->kind == U16) {
        COPY(uint16_t)
    } else {
        COPY(float)
    }
#undef COPY
}

/* Samples of `wide` phases, one filter of five taps each, side by side. */
INLINE void phases(const float *sums, const struct taps *taps, const int wide, int count, float *out) {
    for (int i = 0; i < count; i++)
        for (int phase = 0; phase < wide; phase++) {
            const float *t = taps->across[phase], *s = sums + i;
            out[i * wide + phase] = t[0] * s[0] + t[1] * s[1] + t[2] * s[2] + t[3] * s[3] + t[4] * s[4];
        }
}

/* Row `row` of an interpolated plane, `count` samples from column `first` on: a filter of five taps each way around
   sample floor(n / times). `scratch` holds 3 * (count + 24) floats. */
INLINE void interpolate(const struct plane *plane, const struct taps *taps, int row, int first, int count, float gain,
                        float offset, float *scratch, float *out) {
    const int wide = taps->wide, begin = floor_div(first, wide), some = (first + count - begin * wide + wide - 1) / wide;
    const float *down = taps->down[row - floor_div(row, taps->high) * taps->high];
    float *line = scratch, *sums = line + some + 4, *made = sums + some + 4;
    for (int k = 0; k < 5; k++) {
        fetch(plane, floor_div(row, taps->high) + k - 2, begin - 2, some + 4, gain, offset, line);
        if (k)
            for (int i = 0; i < some + 4; i++) sums[i] += down[k] * line[i];
        else
            for (int i = 0; i < some + 4; i++) sums[i] = down[0] * line[i];
    }
    if (wide == 2)
        phases(sums, taps, 2, some, made);
    else
        phases(sums, taps, wide, some, made);
    memcpy(out, made + (first - begin * wide), sizeof(float) * (size_t)count);
}

/* A row of a picture's first `colours` components, one after the other, at the resolution of its first plane. */
APART void components(const struct picture *picture, int colours, const struct taps *taps, int row, int first,
                      int count, float *scratch, float *out, ptrdiff_t pitch) {
    fetch(&picture->planes[0], row, first, count, picture->gain[0], picture->offset[0], out);
    for (int i = 1; i < colours; i++)
        if (taps->wide == 1 && taps->high == 1)
            fetch(&picture->planes[i], row, first, count, picture->gain[i], picture->offset[i], out + i * pitch);
        else
            interpolate(&picture->planes[i], taps, row, first, count, picture->gain[i], picture->offset[i], scratch,
                        out + i * pitch);
}

/* Rounds to the nearest code, halves to even, and clamps. NaN becomes some code. */
INLINE int32_t code(float value, float peak) {
    value = value < peak ? value : peak;
    value = value > 0.0f ? value : 0.0f;
    union {
        float number;
        int32_t bits;
    } sum = {value + 8388608.0f};
    return sum.bits & 0x7FFFFF;
}

/* `across` samples of each of `columns` pixels to a row of a plane, side by side; `rows` has one after the other.
   Returns their sum. */
APART float finish(const float *rows, ptrdiff_t pitch, int across, int columns, float peak, const struct plane *plane,
                   int row, int first) {
    float sum = 0;
    char *line = (char *)plane->data + row * plane->stride;
    for (int i = 0; i < across; i++) {
        float part[LANES] = {0};
        int x = 0;
        for (; x + LANES <= columns; x += LANES)
            for (int j = 0; j < LANES; j++) part[j] += rows[i * pitch + x + j];
        for (; x < columns; x++) sum += rows[i * pitch + x];
        for (int j = 0; j < LANES; j++) sum += part[j];
    }
    const float *a = rows, *b = rows + pitch, *c = b + pitch, *d = c + pitch;
    if (plane->kind == U8 && across == 2) {
        uint16_t *out = (uint16_t *)(line + first * 2);
        for (int x = 0; x < columns; x++) out[x] = (uint16_t)(code(a[x], peak) | code(b[x], peak) << 8);
    } else if (plane->kind == U8 && across == 4) {
        uint32_t *out = (uint32_t *)(line + first * 4);
        for (int x = 0; x < columns; x++)
            out[x] = (uint32_t)(code(a[x], peak) | code(b[x], peak) << 8 | code(c[x], peak) << 16) |
                     (uint32_t)code(d[x], peak) << 24;
    } else if (plane->kind == U16 && across == 2) {
        uint32_t *out = (uint32_t *)(line + first * 4);
        for (int x = 0; x < columns; x++) out[x] = (uint32_t)code(a[x], peak) | (uint32_t)code(b[x], peak) << 16;
    } else {
        for (int i = 0; i < across; i++)
            for (int x = 0; x < columns; x++) {
                int32_t value = code(rows[i * pitch + x], peak);
                ptrdiff_t place = (ptrdiff_t)(first + x) * across + i;
                if (plane->kind == U8)
                    ((uint8_t *)line)[place] = (uint8_t)value;
                else
                    ((uint16_t *)line)[place] = (uint16_t)value;
            }
    }
    return sum;
}

/* Columns on each side of a strip that are not finished. */
static int FUNCTION(rim)(const struct network *net, const struct target *target) {
    int most = 0;
    for (int i = 0; i < target->parts; i++) {
        int column = abs(target->part[i].column);
        most = column > most ? column : most;
    }
    return net->blocks + 4 + most;
}

/* Columns `first` to `first + columns - 2 * rim` of the target's planes, or as many as there are; `columns` is a
   multiple of LANES. `still`: what the base path sees; `average`: the detail path. 1; 0 if results are not finite; -1
   if there is no memory. */
int FUNCTION(strip)(const struct network *net, const struct picture *still, const struct picture *average,
                    const struct taps *taps, const struct target *target, int first, int columns) {
    const int C = net->channels, wide = 2 * C, blocks = net->blocks, reach = blocks + 4, E = net->outputs;
    const int rows = still->planes[0].rows, width = still->planes[0].columns, rim = FUNCTION(rim)(net, target);
    const ptrdiff_t pitch = columns + 2 * RIM;
    const int valid = first + columns - 2 * rim > width ? width - first : columns - 2 * rim;
    int samples = 0;
    for (int i = 0; i < target->planes; i++) samples += target->down[i] * target->across[i];

    /* Every ring holds the rows that are read in a step of two rows, and those that are written. */
    struct ring in = {NULL, pitch, net->colours, 4}, base = {NULL, pitch, net->base_colours, reach + 10};
    struct ring features[MAX_BLOCKS + 1], wider[MAX_BLOCKS];
    ptrdiff_t total = pitch * (in.slots * in.channels + base.slots * base.channels + TAPS * C + ROWS * E + samples);
    total += 2 * PART * wide + 3 * (columns + 24);
    for (int b = 0; b <= blocks; b++) {
        features[b] = (struct ring){NULL, pitch, C, b < blocks ? 4 : TAPS};
        if (b < blocks) wider[b] = (struct ring){NULL, pitch, wide, 4};
        total += pitch * C * features[b].slots + (b < blocks ? pitch * wide * 4 : 0);
    }
    float *memory = aligned_alloc(64, ((size_t)total * sizeof(float) + 63) / 64 * 64), *free_from = memory;
    if (!memory) return -1;
    memset(memory, 0, (size_t)total * sizeof(float)); /* what is read before it is made must be finite */
#define TAKE(count) (free_from += (count), free_from - (count))
    in.memory = TAKE(pitch * in.slots * in.channels);
    base.memory = TAKE(pitch * base.slots * base.channels);
    for (int b = 0; b <= blocks; b++) {
        features[b].memory = TAKE(pitch * C * features[b].slots);
        if (b < blocks) wider[b].memory = TAKE(pitch * wide * 4);
    }
    float *spread = TAKE(2 * PART * wide), *transformed = TAKE(pitch * TAPS * C) + RIM;
    float *codes = TAKE(pitch * ROWS * E) + RIM;
    float *summed = TAKE(pitch * samples) + RIM, *scratch = TAKE(3 * (columns + 24));
#undef TAKE

    const float *r[TAPS];
    float sum = 0;
    /* Step i brings the picture's rows i - reach and the one below in; row n of a layer is made of rows around n of the
       layer before, so every layer is a row behind, and begins with row 1 more than that. In every second step four
       rows come out, the last of them 2 reach before the last that came in. */
    for (int i = 0, row = -ROWS; row + ROWS < rows; i += 2) {
        for (int k = i; k < i + 2; k++) {
            components(average, net->colours, taps, k - reach, first - rim, columns, scratch, at(&in, k), pitch);
            if (still == average)
                memcpy(at(&base, k), at(&in, k), sizeof(float) * (size_t)(pitch * base.channels - RIM));
            else
                components(still, net->base_colours, taps, k - reach, first - rim, columns, scratch, at(&base, k),
                           pitch);
        }
        const float *w = net->weights;
        int n = i - 1; /* the first of the two rows that a layer makes */
        for (int k = n; k < n + 2; k++) {
            for (int t = 0; t < 3; t++) r[t] = at(&in, k - 1 + t);
            convolve_3x3(r, pitch, net->colours, w + C, w, at(&features[0], k), C, columns);
        }
        w += C + C * net->colours * 9;
        for (int b = 0; b < blocks; b++) {
            const float *first_w = w, *depth_w = w + wide + wide * C, *last_w = depth_w + wide * 10;
            w = last_w + C + C * wide;
            for (int k = n; k < n + 2 && n >= b; k++)
                widen(at(&features[b], k), pitch, C, first_w + wide, first_w, at(&wider[b], k), wide, columns);
            n--;
            if (n <= b) continue;
            for (int t = 0; t < 4; t++) r[t] = at(&wider[b], n - 1 + t);
            for (int x = 0; x < columns; x += PART) {
                int some = columns - x < PART ? columns - x : PART;
                depthwise(r, pitch, wide, depth_w, spread, x, some);
                for (int k = 0; k < 2; k++)
                    narrow(spread + k * wide * PART, wide, last_w + C, last_w, at(&features[b + 1], n + k) + x, pitch, C,
                           at(&features[b], n + k) + x, some);
            }
        }
        n -= TAPS - 5; /* the last of these rows is n + 1 now, and three above the first result belong to it */
        if (n < reach || (n - reach) % ROWS) continue;
        row = n - reach;
        for (int t = 0; t < TAPS; t++) r[t] = at(&features[blocks], n - 3 + t);
        transform(r, pitch, C, transformed, columns);
        tail(transformed, pitch, C, w + E, w, codes, pitch * E, E, columns);
        w += E + TAPS * E * C * 7;
        for (int k = 0; k < ROWS && row + k < rows; k++) {
            for (int t = 0; t < 3; t++) r[t] = at(&base, n + k - 1 + t);
            add_3x3(r, pitch, net->base_colours, w, codes + k * pitch * E, E, columns);
            const float *made = codes + k * pitch * E;
            if (target->parts) {
                memset(summed, 0, sizeof(float) * (size_t)(pitch * samples - RIM));
                for (int i = 0; i < target->parts; i++) {
                    const struct part *part = &target->part[i];
                    float *to = summed + part->sample * pitch;
                    const float *from = made + part->output * pitch + part->column;
                    for (int x = rim; x < columns - rim; x++) to[x] += from[x];
                }
                made = summed;
            }
            for (int i = 0; i < target->planes; i++)
                for (int y = 0; y < target->down[i]; y++, made += target->across[i] * pitch)
                    sum += finish(made + rim, pitch, target->across[i], valid, target->peak, &target->plane[i],
                                  (row + k) * target->down[i] + y, first);
        }
    }
    free(memory);
    return isfinite(sum);
}

/* Rows `begin` to `end` of an interpolated plane. */
int FUNCTION(enlarge)(const struct plane *source, const struct taps *taps, float gain, float offset, float peak,
                      const struct plane *target, int begin, int end) {
    ptrdiff_t room = 3 * (target->columns + 24);
    float *memory = malloc((size_t)(room + target->columns) * sizeof(float)), *line = memory + room;
    if (!memory) return -1;
    for (int y = begin; y < end; y++) {
        interpolate(source, taps, y, 0, target->columns, gain, offset, memory, line);
        char *out = (char *)target->data + y * target->stride;
        if (target->kind == U8)
            for (int x = 0; x < target->columns; x++) ((uint8_t *)out)[x] = (uint8_t)code(line[x], peak);
        else
            for (int x = 0; x < target->columns; x++) ((uint16_t *)out)[x] = (uint16_t)code(line[x], peak);
    }
    free(memory);
    return 0;
}

/* exp(-x) of x >= 0, to 3e-6 of it: 2^n times the first terms of the series of 2^f, f in [-1/2, 1/2]. */
INLINE vec decay(vec x) {
    typedef int32_t whole __attribute__((vector_size(4 * LANES)));
    vec z = most(splat(-126.0f), -1.44269504f * x);
    whole n = __builtin_convertvector(z - 0.5f, whole); /* towards 0, so to the nearest: z <= 0 */
    vec f = z - __builtin_convertvector(n, vec), p = splat(0.00133335581f);
    p = p * f + 0.00961812911f;
    p = p * f + 0.0555041087f;
    p = p * f + 0.240226507f;
    p = p * f + 0.693147181f;
    p = p * f + 1.0f;
    return p * (vec)((n + 127) << 23);
}

/* Adds `weights` times a plane's row to `sums`, and `weights` to `totals`. A weight of a subsampled plane is the mean
   over a block: of `down` rows, `pitch` apart, and `across` columns. `row` and `means`: room for a row each. */
INLINE void add_weighted(const struct plane *plane, int at_row, const float *weights, ptrdiff_t pitch, const int down,
                         const int across, float *row, float *means, float *sums, float *totals) {
    int columns = plane->columns;
    fetch(plane, at_row, 0, columns, 1.0f, 0.0f, row);
    if (down * across > 1) {
        for (int x = 0; x < columns; x++) {
            float sum = 0;
            for (int y = 0; y < down; y++)
                for (int i = 0; i < across; i++) sum += weights[y * pitch + x * across + i];
            means[x] = sum / (float)(down * across);
        }
        weights = means;
    }
    for (int x = 0; x < columns; x++) sums[x] += weights[x] * row[x], totals[x] += weights[x];
}

/* `temporal.average` of `count` pictures, newest first, into float planes: rows `begin` to `end` of the last planes,
   and what belongs to them of the first. `inverse`: 1 / threshold^2. */
int FUNCTION(average)(const struct picture *pictures, int count, int wide, int high, float inverse,
                      const struct picture *out, int begin, int end) {
    const int columns = out->planes[0].columns;
    const ptrdiff_t pitch = columns + 2 * RIM;
    /* Of the rows of a block and those around it: the newest picture's, the change of one other; then weights. */
    float *memory = calloc((size_t)(pitch * (2 * (high + 2) + 3 + high * count)), sizeof(float));
    if (!memory) return -1;
    float *guides = memory + RIM, *changes = guides + pitch * (high + 2), *row = changes + pitch * (high + 2);
    float *means = row + pitch, *totals = means + pitch, *weights = totals + pitch;
    for (int block = begin; block < end; block++) {
        for (int y = 0; y < high + 2; y++) /* beyond their edges pictures repeat them, and so do changes */
            fetch(&pictures[0].planes[0], block * high + y - 1, 0, columns, 1.0f, 0.0f, guides + y * pitch);
        for (int x = 0; x < columns + 4; x++)
            for (int y = 0; y < high; y++) weights[y * count * pitch + x] = 1.0f;
        for (int k = 1; k < count; k++) {
            for (int y = 0; y < high + 2; y++) {
                float *change = changes + y * pitch, *guide = guides + y * pitch;
                fetch(&pictures[k].planes[0], block * high + y - 1, 0, columns, 1.0f, 0.0f, row);
                for (int x = 0; x < columns; x++) change[x] = fabsf(row[x] - guide[x]);
            }
            for (int y = 0; y < high; y++) {
                float *w = weights + (y * count + k) * pitch, *change = changes + y * pitch;
                for (int x = 0; x < columns; x++) row[x] = change[x] + change[x + pitch] + change[x + 2 * pitch];
                row[-1] = row[0];
                for (int i = 0; i < LANES; i++) row[columns + i] = row[columns - 1];
                for (int x = 0; x < columns; x += LANES) {
                    vec d = (load(row + x - 1) + load(row + x) + load(row + x + 1)) * (1.0f / 9.0f);
                    store(w + x, decay(d * d * inverse));
                }
                for (int i = 0; i < 4; i++) w[columns + i] = w[columns - 1]; /* blocks reach beyond the edge */
            }
        }
        for (int i = 0; i < out->colours; i++) {
            const struct plane *plane = &out->planes[i];
            const int down = i ? high : 1, across = i ? wide : 1;
            for (int y = 0; y < high / down && block * (high / down) + y < plane->rows; y++) {
                const int at_row = block * (high / down) + y;
                float *sums = (float *)((char *)plane->data + at_row * plane->stride);
                for (int x = 0; x < plane->columns; x++) sums[x] = totals[x] = 0.0f;
                for (int k = 0; k < count; k++) {
                    const float *w = weights + (y * count + k) * pitch;
                    if (down == 1 && across == 1)
                        add_weighted(&pictures[k].planes[i], at_row, w, 0, 1, 1, row, means, sums, totals);
                    else if (down == 2 && across == 2)
                        add_weighted(&pictures[k].planes[i], at_row, w, count * pitch, 2, 2, row, means, sums, totals);
                    else
                        add_weighted(&pictures[k].planes[i], at_row, w, count * pitch, down, across, row, means, sums,
                                     totals);
                }
                for (int x = 0; x < plane->columns; x++) sums[x] /= totals[x];
            }
        }
    }
    free(memory);
    return 0;
}
