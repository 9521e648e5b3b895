/* What `engines/native_library.py` calls, and what it gives. */

#ifndef VIDEOSR_NATIVE_H
#define VIDEOSR_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#define MAX_BLOCKS 16
#define MAX_PARTS 64

enum kind { U8, U16, F32 };

struct plane {
    void *data;
    ptrdiff_t stride; /* bytes from a row to the next */
    int32_t rows, columns, kind;
};

/* Component = code * gain + offset. */
struct picture {
    struct plane planes[3];
    float gain[3], offset[3];
    int32_t colours;
};

/* How planes are interpolated: `high` by `wide` samples of one, each from 5 by 5. */
struct taps {
    int32_t high, wide;
    float down[8][5], across[8][5];
};

/* Weights lie in the order in which they are used:
   conv_in: bias [channels]; factors [channels / 4][3 rows][colours][3 columns][4 outputs]
   each Nano block:
       conv1: bias [2 channels], factors [2 channels / 4][channels][4]; depthwise [2 channels][9 factors, bias];
       conv2: bias [channels], halves of factors [channels / 4][2 channels][4]
   each gated block:
       dw1 [channels][9 factors, bias]; dw3 the same;
       fuse: bias [channels], factors [channels / 4][2 channels][4];
       proj: bias [4 channels], factors [channels][channels][4]; gate [4 channels][9 factors, bias];
       out: bias [channels], factors [channels / 4][2 channels][4]
   tail: bias [outputs], in codes; factors [14 transformed rows][outputs / 4][channels][7 columns][4]
   base: [outputs / 4][3 rows][base_colours][3 columns][4] */
struct network {
    const float *weights;
    int32_t scale, channels, blocks, outputs, colours, base_colours;
    float limit; /* of the products in gated blocks; 0: blocks are Nano blocks */
};

/* A sample is the sum of its parts: outputs of its own pixel and of neighbours in the row or, with `row` -1, in the row
   above. */
struct part {
    int32_t sample, output, row, column;
};

/* Planes that the network makes. A pixel owns `down` by `across` samples of each, in that order, plane by plane. */
struct target {
    struct plane plane[3];
    int32_t down[3], across[3];
    float peak;
    int32_t planes, parts; /* parts: 0 where samples are outputs */
    struct part part[MAX_PARTS];
};

static inline int floor_div(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

#endif
