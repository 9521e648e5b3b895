/* Samples of video planes: to floats, interpolated, and from floats to codes. */

#ifndef VIDEOSR_SAMPLES_H
#define VIDEOSR_SAMPLES_H

#include <limits.h>

#include "native.h"
#include "vectors.h"

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

/* Rows of a plane as floats, and a row made of them: what is interpolated goes from row to row. */
struct lines {
    float *memory; /* LINES rows of `room` floats */
    ptrdiff_t room;
    int held[5]; /* which row lies where; NONE: none */
};

#define LINES 6
#define NONE INT_MIN

INLINE struct lines lines_of(float *memory, ptrdiff_t room) {
    return (struct lines){memory, room, {NONE, NONE, NONE, NONE, NONE}};
}

/* Row `row` of an interpolated plane, `count` samples from column `first` on: a filter of five taps each way around
   sample floor(n / times). Writes less than `wide` samples more on either side. The lines are of this plane alone, for
   the same `first` and `count`. */
INLINE void interpolate(const struct plane *plane, const struct taps *taps, int row, int first, int count, float gain,
                        float offset, struct lines *lines, float *out) {
    const int wide = taps->wide, begin = floor_div(first, wide), source = floor_div(row, taps->high);
    const int some = (first + count - begin * wide + wide - 1) / wide;
    const float *down = taps->down[row - source * taps->high], *line[5];
    float *sums = lines->memory + 5 * lines->room;
    for (int k = 0; k < 5; k++) {
        const int wanted = source + k - 2, slot = wanted - 5 * floor_div(wanted, 5);
        line[k] = lines->memory + slot * lines->room;
        if (lines->held[slot] != wanted) {
            fetch(plane, wanted, begin - 2, some + 4, gain, offset, lines->memory + slot * lines->room);
            lines->held[slot] = wanted;
        }
    }
    for (int i = 0; i < some + 4; i++)
        sums[i] = down[0] * line[0][i] + down[1] * line[1][i] + down[2] * line[2][i] + down[3] * line[3][i] +
                  down[4] * line[4][i];
    out -= first - begin * wide;
    if (wide == 2)
        phases(sums, taps, 2, some, out);
    else if (wide == 4)
        phases(sums, taps, 4, some, out);
    else
        phases(sums, taps, wide, some, out);
}

/* A row of a picture's first `colours` components, one after the other, at the resolution of its first plane. `lines`:
   of its second and third. */
APART void components(const struct picture *picture, int colours, const struct taps *taps, int row, int first,
                      int count, struct lines *lines, float *out, ptrdiff_t pitch) {
    fetch(&picture->planes[0], row, first, count, picture->gain[0], picture->offset[0], out);
    for (int i = 1; i < colours; i++)
        if (taps->wide == 1 && taps->high == 1)
            fetch(&picture->planes[i], row, first, count, picture->gain[i], picture->offset[i], out + i * pitch);
        else
            interpolate(&picture->planes[i], taps, row, first, count, picture->gain[i], picture->offset[i],
                        &lines[i - 1], out + i * pitch);
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

#endif
