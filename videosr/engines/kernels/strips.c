/* A network of Nano blocks, or of stream's gated ones, over a strip of a picture, on a CPU: planes in, planes out.

   A strip is a band of columns, as high as the picture. It is made from top to bottom, two rows at a time, through all
   layers: each layer keeps the few rows that the next one reads in a ring, so that what is under way stays in the
   caches and no row is made twice. Columns are: all layers make as many of them, and with every layer fewer of those
   at either end are what they would be in the whole picture.

   Beyond its edges the picture's edge samples are repeated, without end.

   `layers.h` says how layers are made, `samples.h` what becomes of planes.

   This file is compiled once for each width of vectors; FUNCTION gives names their suffix. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers.h"
#include "native.h"
#include "samples.h"

#define RIM 16 /* floats beside a row that are read and never used, or written and never read */

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

/* How many rows a block sees above and below its own. */
INLINE int reach_of_block(const struct network *net) { return net->limit > 0 ? 4 : 1; }

/* Rows that are made above the picture: a step's, where parts of its samples come from there. */
INLINE int made_above(const struct target *target) {
    for (int i = 0; i < target->parts; i++)
        if (target->part[i].row) return ROWS;
    return 0;
}

/* Columns on each side of a strip that are not finished. */
static int FUNCTION(rim)(const struct network *net, const struct target *target) {
    int most = 0;
    for (int i = 0; i < target->parts; i++) {
        int column = abs(target->part[i].column);
        most = column > most ? column : most;
    }
    return reach_of_block(net) * net->blocks + 4 + most;
}

/* A block under way. */
struct block {
    const struct ring *in, *wider, *out;
    int first;     /* row of `in` that is made; those above are not */
    float *spread; /* room for parts of rows */
};

/* Rows of a Nano block from rows n and n + 1 of its input on: makes two and returns the first of them. `weights`: where
   the block's begin; then where they end. */
INLINE int nano(const struct block *block, const float **weights, int n, int columns) {
    const struct ring *in = block->in, *wider = block->wider, *out = block->out;
    const int C = in->channels, wide = wider->channels;
    const ptrdiff_t pitch = in->pitch;
    const float *first_w = *weights, *depth_w = first_w + wide + wide * C, *last_w = depth_w + wide * 10, *r[4];
    *weights = last_w + C + C * wide;
    for (int k = n; k < n + 2 && n >= block->first - 1; k++)
        widen(at(in, k), pitch, C, first_w + wide, first_w, at(wider, k), wide, columns);
    n--;
    if (n < block->first) return n;
    for (int t = 0; t < 4; t++) r[t] = at(wider, n - 1 + t);
    for (int x = 0; x < columns; x += PART) {
        int some = columns - x < PART ? columns - x : PART;
        depthwise_gelu(r, pitch, wide, depth_w, block->spread, wide * PART, x, some);
        for (int k = 0; k < 2; k++)
            narrow(block->spread + k * wide * PART, wide, last_w + C, last_w, at(out, n + k) + x, pitch, C,
                   at(in, n + k) + x, some);
    }
    return n;
}

/* Rows of a gated block, likewise. */
INLINE int stream(const struct block *block, const float **weights, float limit, int n, int columns) {
    const struct ring *in = block->in, *wider = block->wider, *out = block->out;
    const int C = in->channels, both = 2 * C, wide = wider->channels;
    const ptrdiff_t pitch = in->pitch;
    const float *near_w = *weights, *far_w = near_w + C * 10, *fuse_w = far_w + C * 10, *proj_w = fuse_w + C + C * both;
    const float *gate_w = proj_w + wide + wide * C, *out_w = gate_w + wide * 10, *r[4];
    *weights = out_w + C + C * both;
    float *pair = block->spread, *fused = pair + 2 * both * PART; /* two rows of both depthwise results; one of fuse */
    n -= 3;
    for (int x = 0; x < columns && n >= block->first + 2; x += PART) {
        int some = columns - x < PART ? columns - x : PART;
        for (int t = 0; t < 4; t++) r[t] = at(in, n - 1 + t);
        depthwise(r, pitch, C, near_w, pair, both * PART, x, some);
        for (int k = 0; k < 2; k++) {
            float *row = pair + k * both * PART;
            for (int t = 0; t < 3; t++) r[t] = at(in, n + k - 3 + 3 * t);
            depthwise_far(r, pitch, C, far_w, row + C * PART, x, some);
            narrow(row, both, fuse_w + C, fuse_w, fused, PART, C, NULL, some);
            narrow(fused, C, proj_w + wide, proj_w, at(wider, n + k) + x, pitch, wide, NULL, some);
        }
    }
    n--;
    if (n < block->first + 3) return n;
    for (int t = 0; t < 4; t++) r[t] = at(wider, n - 1 + t);
    for (int x = 0; x < columns; x += PART) {
        int some = columns - x < PART ? columns - x : PART;
        depthwise(r, pitch, wide, gate_w, block->spread, wide * PART, x, some);
        for (int k = 0; k < 2; k++) {
            gated(block->spread + k * wide * PART, wide, limit, some);
            narrow(block->spread + k * wide * PART, both, out_w + C, out_w, at(out, n + k) + x, pitch, C,
                   at(in, n + k) + x, some);
        }
    }
    return n;
}

/* Columns `first` to `first + columns - 2 * rim` of the target's planes, or as many as there are; `columns` is a
   multiple of LANES. `still`: what the base path sees; `average`: the detail path. 1; 0 if results are not finite; -1
   if there is no memory. */
int FUNCTION(strip)(const struct network *net, const struct picture *still, const struct picture *average,
                    const struct taps *taps, const struct target *target, int first, int columns) {
    const int C = net->channels, blocks = net->blocks, E = net->outputs, step = reach_of_block(net);
    const int wide = (net->limit > 0 ? 4 : 2) * C, reach = step * blocks + 4;
    const int rows = still->planes[0].rows, width = still->planes[0].columns, rim = FUNCTION(rim)(net, target);
    const int above = made_above(target);
    const ptrdiff_t pitch = columns + 2 * RIM;
    const int valid = first + columns - 2 * rim > width ? width - first : columns - 2 * rim;
    int samples = 0;
    for (int i = 0; i < target->planes; i++) samples += target->down[i] * target->across[i];

    /* Every ring holds the rows that are read in a step of two rows, and those that are written. */
    struct ring in = {NULL, pitch, net->colours, 4}, base = {NULL, pitch, net->base_colours, reach + TAPS};
    struct ring features[MAX_BLOCKS + 1], wider[MAX_BLOCKS];
    ptrdiff_t total = pitch * (in.slots * in.channels + base.slots * base.channels + samples);
    total += pitch * (TAPS * C + (1 + ROWS) * E);
    const ptrdiff_t room = columns + 24;
    total += 2 * PART * wide + 4 * LINES * room;
    for (int b = 0; b <= blocks; b++) {
        features[b] = (struct ring){NULL, pitch, C, b < blocks ? 2 + 2 * step : TAPS};
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
    float *before = TAKE(pitch * (1 + ROWS) * E) + RIM, *codes = before + pitch * E; /* the row above those of a step */
    float *summed = TAKE(pitch * samples) + RIM;
    struct lines lines[2][2]; /* of the picture that the detail path sees, and of the other one */
    for (int i = 0; i < 4; i++) lines[i / 2][i % 2] = lines_of(TAKE(LINES * room), room);
#undef TAKE

    const float *r[TAPS];
    float sum = 0;
    /* Step i brings the picture's rows i - reach and the one below in; row n of a layer is made of rows around n of the
       layer before, so every layer is a row behind (a gated block four), and begins with as many rows more. In every
       fourth step eight rows come out, the last of them 2 reach before the last that came in. With rows above the
       picture, all of this begins as many higher. */
    for (int i = 0, row = -ROWS - above; row + ROWS < rows; i += 2) {
        for (int k = i; k < i + 2; k++) {
            components(average, net->colours, taps, k - reach - above, first - rim, columns, lines[0], at(&in, k),
                       pitch);
            if (still == average)
                memcpy(at(&base, k), at(&in, k), sizeof(float) * (size_t)(pitch * base.channels - RIM));
            else
                components(still, net->base_colours, taps, k - reach - above, first - rim, columns, lines[1],
                           at(&base, k), pitch);
        }
        const float *w = net->weights;
        int n = i - 1; /* the first of the two rows that a layer makes */
        for (int k = n; k < n + 2; k++) {
            for (int t = 0; t < 3; t++) r[t] = at(&in, k - 1 + t);
            convolve_3x3(r, pitch, net->colours, w + C, w, at(&features[0], k), C, columns);
        }
        w += C + C * net->colours * 9;
        for (int b = 0; b < blocks; b++) {
            const struct block block = {&features[b], &wider[b], &features[b + 1], 1 + step * b, spread};
            n = net->limit > 0 ? stream(&block, &w, net->limit, n, columns) : nano(&block, &w, n, columns);
        }
        n -= TAPS - 5; /* the last of these rows is n + 1 now, and three above the first result belong to it */
        if (n < reach || (n - reach) % ROWS) continue;
        row = n - reach - above;
        if (above) memcpy(before, codes + (ROWS - 1) * pitch * E, sizeof(float) * (size_t)(pitch * E - RIM));
        for (int t = 0; t < TAPS; t++) r[t] = at(&features[blocks], n - 3 + t);
        transform(r, pitch, C, transformed, columns);
        tail(transformed, pitch, C, w + E, w, codes, pitch * E, E, columns);
        w += E + TAPS * E * C * 7;
        for (int k = 0; k < ROWS && row + k < rows; k++) {
            for (int t = 0; t < 3; t++) r[t] = at(&base, n + k - 1 + t);
            add_3x3(r, pitch, net->base_colours, w, codes + k * pitch * E, E, columns);
            if (row + k < 0) continue;
            const float *made = codes + k * pitch * E;
            if (target->parts) {
                memset(summed, 0, sizeof(float) * (size_t)(pitch * samples - RIM));
                for (int i = 0; i < target->parts; i++) {
                    const struct part *part = &target->part[i];
                    float *to = summed + part->sample * pitch;
                    const float *from = made + (part->row * E + part->output) * pitch + part->column;
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
    const int columns = target->columns; /* known: a byte that is stored could be part of `target` */
    const ptrdiff_t room = columns + 24;
    float *memory = malloc((size_t)((LINES + 1) * room) * sizeof(float)), *line = memory + LINES * room;
    if (!memory) return -1;
    struct lines lines = lines_of(memory, room);
    for (int y = begin; y < end; y++) {
        interpolate(source, taps, y, 0, columns, gain, offset, &lines, line);
        char *out = (char *)target->data + y * target->stride;
        if (target->kind == U8)
            for (int x = 0; x < columns; x++) ((uint8_t *)out)[x] = (uint8_t)code(line[x], peak);
        else
            for (int x = 0; x < columns; x++) ((uint16_t *)out)[x] = (uint16_t)code(line[x], peak);
    }
    free(memory);
    return 0;
}

/* exp(-x) of x >= 0, to 3e-6 of it: 2^n times the first terms of the series of 2^f, f in [-1/2, 1/2]. */
INLINE vec decay(vec x) {
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
        for (int y = 0; y < high; y++)
            for (int x = 0; x < columns + 4; x++) weights[y * count * pitch + x] = 1.0f;
        for (int k = 1; k < count; k++) {
            for (int y = 0; y < high + 2; y++) {
                float *change = changes + y * pitch, *guide = guides + y * pitch;
                fetch(&pictures[k].planes[0], block * high + y - 1, 0, columns, 1.0f, 0.0f, row);
                for (int x = 0; x < columns; x++) change[x] = fabsf(row[x] - guide[x]);
            }
            for (int y = 0; y < high; y++) {
                float *w = weights + (y * count + k) * pitch, *change = changes + y * pitch;
                if (y && block * high + y >= pictures[0].planes[0].rows) { /* chroma reaches beyond an odd edge: */
                    memcpy(w, w - count * pitch, (size_t)(columns + 4) * sizeof(float)); /* weights repeat there */
                    continue;
                }
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
