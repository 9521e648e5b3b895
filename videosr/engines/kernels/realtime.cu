// The realtime network of ParagonSR2 in deployment form, from picture to enlarged picture in one launch.
//
//     average -> conv_in 3x3 3->16 -> 3 x [1x1 16->32, depthwise 3x3, GELU, 1x1 32->16, add] -> conv_mid 3x3 16->16
//             -> tail 5x5 16->3 s^2 --.
//     frame   -> base 3x3 3->3 s^2 ---+-> pixel shuffle
//
// What it costs, a pixel of the input at scale 2: 11,800 multiply-adds, 864 of them depthwise, and 96 GELUs. Kept in
// memory between layers, five maps of 16 channels would be written and read, 320 bytes a pixel, 660 MB a frame of
// 1920x1080: more than any L2 holds, 0.14 ms of an H200's bandwidth and 1.3 ms of an RTX 4070's. The pictures are 72 bytes
// in float32, 8 as 4:2:0 planes. So features stay on the multiprocessor.
//
// Tiles that each recompute their halo of 7 pixels cost 1.5 times the arithmetic at 32x32 outputs, and more shared memory
// than a GeForce has. So a block goes down a strip of the picture, two rows a step, all layers in turn, each as many rows
// behind as it has to see ahead; between layers lie the last 4 rows (6 before the tail). Recomputed are 6 columns on
// either side of the strip (12 of 16 * TILES) and 12 rows above it.
//
// A warp owns 16 columns, as the rows of tensor core products: pixels 2g and 2g + 1 (g = lane / 4) are rows g and g + 8 of
// A, so the two pixels of a lane are neighbours and share what the layers see of them. A lane has the same channels of
// its pixels everywhere: t = lane % 4 has 8j + 2t and 8j + 2t + 1, which is where a product leaves its result and where
// the next wants its input. So 1x1 convolutions chain in registers, the identity never leaves them, and only what
// has spatial extent goes through shared memory. A lane's channels lie side by side there, 16 bytes of 32 channels.
//
// Products are of float16 with float32 sums, but for the first of a block, which is float16 in any case. The depthwise
// sums and GELU are float16, two at a time: a thousand instructions a step less, for 2 dB of 69 on noise and of 78 on smooth
// pictures. The base path sees the picture as two float16 terms, exact to 22 bits, and its weights (of 256ths) are exact: the
// picture itself does not go through half precision.
//
// A step, 32 pixels of a warp: 2,300 instructions, 575 cycles of a multiprocessor's issue; 220 tensor core products, 300
// cycles of an H200's; some 850 of the 128 bytes that shared memory and L1 give in a cycle, a third of them for weights,
// which is why a step has two rows.
//
// Macros: SCALE 2 or 4; OUTPUT float or __half, the type of what is made; TILES warps a block; BLOCKS on a multiprocessor;
// STAGED 1: the weights are kept in shared memory too.

#include "tensor.cuh"
#include "features.cuh"

constexpr int COLUMNS = 16 * TILES;  // of a strip, halo included
constexpr int HALO = 6;              // columns either side that are not right in the end, and rows above
constexpr int NOUT = 3 * SCALE * SCALE;
constexpr int PAIRS = (NOUT + 15) / 16;  // of 8-channel column groups of the last products

// Weights, in uint4: for each 16 (in) x 16 (out) product, each lane's b of both halves; for depthwise convolutions each
// t's 8 channels of 9 taps and of the bias.
constexpr int CONV_IN = 0, BLOCK = CONV_IN + 3 * 32;
constexpr int CONV1 = 0, BIAS1 = CONV1 + 2 * 32, CONV2 = BIAS1 + 4, DEPTHWISE = CONV2 + 2 * 32;
constexpr int BLOCK_SIZE = DEPTHWISE + 10 * 4;
constexpr int MID = BLOCK + 3 * BLOCK_SIZE, TAIL = MID + 9 * 32, BASE = TAIL + 25 * PAIRS * 32;
constexpr int WEIGHTS = BASE + 3 * PAIRS * 32;
// Biases, in float4: for each 8 channels each t's c of a product.
constexpr int BLOCK_BIAS = 2 * 4, BIAS_SIZE = 2 * 4, MID_BIAS = BLOCK_BIAS + 3 * BIAS_SIZE, TAIL_BIAS = MID_BIAS + 2 * 4;
constexpr int BIASES = TAIL_BIAS + 2 * PAIRS * 4;

// Shared memory, in bytes: wide rows of 32 channels (4 a block), narrow rows of 16 (4 before conv_mid, 6 before the tail).
// Of narrow rows the even columns lie together, and the odd ones, and of these 8 channels and the other 8: what ldmatrix
// takes at once, 16 bytes of every second column, are 128 bytes in a row.
constexpr int WIDE = 64 * COLUMNS, PLANE = 8 * COLUMNS + 64, NARROW = 4 * PLANE;
constexpr int LAST = 3 * 4 * WIDE, MIDDLE = LAST + 4 * NARROW, ROWS = MIDDLE + 6 * NARROW;

__device__ __forceinline__ uint4 weight(const uint4* at) { return STAGED ? *at : __ldg(at); }

// What a lane knows of its place, the same for all rows.
struct Lane {
    int id, t;         // in the warp, and in its group of four
    int wide[4];       // bytes from a wide row's start to its channels at columns -1, 0, 1, 2 of its first pixel
    int narrow;        // bytes from a narrow row's start to its channels of its first pixel; the second's lie 2 planes on
    int matrix[5];     // the same to what it tells ldmatrix of the column that a tap sees, -2 to 2
    int column;        // of the picture, of its first pixel; may lie outside
    int seen[2];       // columns of the picture that it brings into 3x3 products of the picture: t - 1 from its pixels

    __device__ __forceinline__ Lane(int first, int width) {
        id = threadIdx.x % 32;
        t = id % 4;
        const int own = threadIdx.x / 32 * 16 + id / 4 * 2;
        column = first + own;
        for (int i = 0; i < 4; i++) wide[i] = place(min(max(own + i - 1, 0), COLUMNS - 1)) + t * 16;
        narrow = (t >> 1) * PLANE + own / 2 * 16 + (t & 1) * 8;
        for (int i = 0; i < 5; i++) {
            const int pixel = threadIdx.x / 32 * 16 + id % 8 * 2 + id / 8 % 2, at = min(max(pixel + i - 2, 0), COLUMNS - 1);
            matrix[i] = ((at & 1) * 2 + id / 16) * PLANE + at / 2 * 16;
        }
        for (int i = 0; i < 2; i++) seen[i] = min(max(column + i + t - 1, 0), width - 1);
    }
};

// The first 1x1 convolution of a block on one row of features, into a wide row.
__device__ __forceinline__ void widen(const Fragment& x, const uint4* weights, char* row, const Lane& lane) {
    Fragment sum[2];
    begin(sum, weight(weights + BIAS1 + lane.t));
    for (int j = 0; j < 2; j++) product(sum[j], x, weight(weights + CONV1 + 32 * j + lane.id));
    for (int i = 0; i < 2; i++) *reinterpret_cast<uint4*>(row + lane.wide[1 + i]) = of_pixel(sum, i);
}

// The rest of a block on two rows: x, as they came into it, become what comes out. `top` is the row above them.
__device__ __forceinline__ void narrow_down(Fragment (&x)[2], const char* rows, int top, const uint4* weights,
                                            const float4* bias, const Lane& lane) {
    Channels sum[2][2];  // of the row, the pixel
    const uint4 own = weight(weights + DEPTHWISE + 9 * 4 + lane.t);
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < 2; i++) shift(sum[o][i], own);
    for (int r = 0; r < 4; r++) {
        const char* row = rows + (top + r & 3) * WIDE;
        uint4 seen[4];
        for (int i = 0; i < 4; i++) seen[i] = pixel(row + lane.wide[i]);
        for (int o = 0; o < 2; o++) {
            if (r < o || r > o + 2) continue;
            for (int dx = 0; dx < 3; dx++) {
                const uint4 tap = weight(weights + DEPTHWISE + (3 * (r - o) + dx) * 4 + lane.t);
                for (int i = 0; i < 2; i++) add(sum[o][i], tap, seen[i + dx]);
            }
        }
    }
    for (int o = 0; o < 2; o++) {
        float low[4], high[4];
        begin(low, bias, lane.t);
        begin(high, bias + 4, lane.t);
        for (int i = 0; i < 2; i++) {
            const float2 first = unpacked(x[o][i]), second = unpacked(x[o][2 + i]);
            low[2 * i] += first.x, low[2 * i + 1] += first.y;
            high[2 * i] += second.x, high[2 * i + 1] += second.y;
        }
        for (int s = 0; s < 2; s++) {
            const Fragment a = {gelu(sum[o][0][2 * s]), gelu(sum[o][1][2 * s]), gelu(sum[o][0][2 * s + 1]),
                                gelu(sum[o][1][2 * s + 1])};
            product(low, high, a, weight(weights + CONV2 + 32 * s + lane.id));
        }
        pack(x[o], low, high);
    }
}

// Its order of channels there, 8j + 2t + i of lane t side by side, is the order in which the weights take them.
__device__ __forceinline__ void store(char* row, const Fragment& x, const Lane& lane) {
    *reinterpret_cast<uint2*>(row + lane.narrow) = make_uint2(x[0], x[2]);
    *reinterpret_cast<uint2*>(row + lane.narrow + 2 * PLANE) = make_uint2(x[1], x[3]);
}

// A picture (3, height, width) to one of (3, SCALE height, SCALE width). Each block makes `strip` rows, an even number.
extern "C" __global__ void __launch_bounds__(32 * TILES, BLOCKS)
realtime(const float* __restrict__ frame, const float* __restrict__ average, OUTPUT* __restrict__ output,
         const uint4* __restrict__ weights, const float4* __restrict__ biases, int height, int width, int strip) {
    extern __shared__ __align__(16) char shared[];
    const int first_row = blockIdx.y * strip, last_row = min(first_row + strip, height);
    const int first_column = blockIdx.x * (COLUMNS - 2 * HALO);
    const Lane lane(first_column - HALO, width);
    if (STAGED) {
        uint4* own = reinterpret_cast<uint4*>(shared + ROWS);
        for (int i = threadIdx.x; i < WEIGHTS; i += 32 * TILES) own[i] = __ldg(weights + i);
        weights = own;
        float4* shifts = reinterpret_cast<float4*>(own + WEIGHTS);
        for (int i = threadIdx.x; i < BIASES; i += 32 * TILES) shifts[i] = __ldg(biases + i);
        biases = shifts;
        __syncthreads();
    }
    Fragment kept[3] = {};  // for each block, the next one's first, features of the row that has still to go through it
    Fragment seen[4];       // rows of the average
    Coming coming[2];
    for (int r = 0; r < 2; r++) {
        coming[r].fetch(average, first_row - HALO - 1 + r, lane.seen, height, width);
        coming[r].arrive(seen[2 + r]);
        coming[r].fetch(average, first_row - HALO + 1 + r, lane.seen, height, width);
    }

    int turn = 0;  // step % 3: where the rows of conv_mid go
    for (int step = 0; first_row + 2 * step - 12 < last_row; step++) {
        turn = turn == 2 ? 0 : turn + 1;
        const int row = 2 * step, base_row = first_row - HALO;  // what is `row` here is base_row + row in the picture

        // conv_in on rows `row` and `row` + 1, then into the first block
        Fragment x[2];
        {
            for (int i = 0; i < 4; i++) seen[0][i] = seen[2][i], seen[1][i] = seen[3][i];
            for (int r = 0; r < 2; r++) {
                coming[r].arrive(seen[2 + r]);
                coming[r].fetch(average, base_row + row + 3 + r, lane.seen, height, width);
            }
            float low[2][4], high[2][4];
            for (int o = 0; o < 2; o++) {
                begin(low[o], biases, lane.t);
                begin(high[o], biases + 4, lane.t);
            }
            for (int dy = 0; dy < 3; dy++) {
                const uint4 b = weight(weights + CONV_IN + 32 * dy + lane.id);
                for (int o = 0; o < 2; o++) product(low[o], high[o], seen[o + dy], b);
            }
            for (int o = 0; o < 2; o++) pack(x[o], low[o], high[o]);
        }

        // The blocks, each one row behind what feeds it
#pragma unroll 1
        for (int block = 0; block < 3; block++) {
            const uint4* own = weights + BLOCK + block * BLOCK_SIZE;
            const float4* bias = biases + BLOCK_BIAS + block * BIAS_SIZE;
            char* rows = shared + block * 4 * WIDE;
            for (int o = 0; o < 2; o++)
                widen(x[o], own, rows + (row - block + o & 3) * WIDE, lane);
            __syncthreads();
            for (int i = 0; i < 4; i++) {
                const unsigned newest = x[1][i];
                x[1][i] = x[0][i];
                x[0][i] = kept[0][i];
                kept[0][i] = kept[1][i];
                kept[1][i] = kept[2][i];
                kept[2][i] = newest;
            }
            narrow_down(x, rows, row - block - 2, own, bias, lane);
        }
        for (int o = 0; o < 2; o++) store(shared + LAST + (row - 3 + o & 3) * NARROW, x[o], lane);
        __syncthreads();

        // conv_mid on rows `row` - 4 and `row` - 3
        {
            float low[2][4], high[2][4];
            for (int o = 0; o < 2; o++) {
                begin(low[o], biases + MID_BIAS, lane.t);
                begin(high[o], biases + MID_BIAS + 4, lane.t);
            }
            for (int r = 0; r < 4; r++)
                for (int dx = 0; dx < 3; dx++) {
                    Fragment a;
                    ldmatrix(a, shared + LAST + (row - 5 + r & 3) * NARROW + lane.matrix[1 + dx]);
                    for (int o = 0; o < 2; o++)
                        if (r >= o && r <= o + 2)
                            product(low[o], high[o], a, weight(weights + MID + (3 * (r - o) + dx) * 32 + lane.id));
                }
            for (int o = 0; o < 2; o++) {
                pack(x[o], low[o], high[o]);
                store(shared + MIDDLE + (2 * turn + o) * NARROW, x[o], lane);
            }
        }
        __syncthreads();
        if (step < 6) continue;  // still above the strip

        // The tail and the base path on rows `row` - 6 and `row` - 5
        const int made_row = base_row + row - 6;
        Coming frame_rows[4];
        for (int r = 0; r < 4; r++) frame_rows[r].fetch(frame, made_row - 1 + r, lane.seen, height, width);
        float sum[2][2 * PAIRS][4];
        for (int o = 0; o < 2; o++)
            for (int j = 0; j < 2 * PAIRS; j++) begin(sum[o][j], biases + TAIL_BIAS + 4 * j, lane.t);
#pragma unroll SCALE == 2 ? 6 : 1  // of 4 the sums leave no registers for it
        for (int r = 0; r < 6; r++) {
            const int pair = turn + 1 + r / 2, slot = pair >= 3 ? pair - 3 : pair;
            for (int dx = 0; dx < 5; dx++) {
                Fragment a;
                ldmatrix(a, shared + MIDDLE + (2 * slot + r % 2) * NARROW + lane.matrix[dx]);
                for (int o = 0; o < 2; o++) {
                    if (r < o || r > o + 4) continue;
                    for (int j = 0; j < PAIRS; j++)
                        product(sum[o][2 * j], sum[o][2 * j + 1], a,
                                weight(weights + TAIL + ((5 * (r - o) + dx) * PAIRS + j) * 32 + lane.id));
                }
            }
        }
        for (int r = 0; r < 4; r++) {
            Fragment a, rest;
            frame_rows[r].arrive(a);
            frame_rows[r].rest(rest, a);
            for (int o = 0; o < 2; o++) {
                if (r < o || r > o + 2) continue;
                for (int j = 0; j < PAIRS; j++) {
                    const uint4 b = weight(weights + BASE + ((r - o) * PAIRS + j) * 32 + lane.id);
                    product(sum[o][2 * j], sum[o][2 * j + 1], a, b);
                    product(sum[o][2 * j], sum[o][2 * j + 1], rest, b);
                }
            }
        }

        const int in_strip = lane.column - first_column;
        for (int o = 0; o < 2; o++) {
            const int y = made_row + o;
            if (y >= last_row) continue;
            const bool inside[2] = {in_strip >= 0 && in_strip < COLUMNS - 2 * HALO && lane.column < width,
                                    in_strip + 1 >= 0 && in_strip + 1 < COLUMNS - 2 * HALO && lane.column + 1 < width};
            shuffle_out<SCALE>(output, sum[o], y, lane.column, lane.t, inside, height, width);
        }
        __syncwarp();  // products want all lanes together again
    }
}
