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
// behind as it has to see ahead; between layers lie the last 4 rows (8 before the tail). Recomputed are 6 columns on
// either side of the strip (12 of 16 * TILES) and 12 rows above it.
//
// A warp owns 16 columns, as the rows of tensor core products: pixels 2g and 2g + 1 (g = lane / 4) are rows g and g + 8 of
// A, so the two pixels of a lane are neighbours and share what the layers see of them. A lane has the same channels of
// its pixels everywhere: t = lane % 4 has 8j + 2t and 8j + 2t + 1, which is where a product leaves its result and where
// the next wants its input. So 1x1 convolutions chain in registers, the identity never leaves them, and only what
// has spatial extent goes through shared memory. A lane's channels lie side by side there, 16 bytes of 32 channels.
//
// Products are of float16 with float32 sums. The depthwise sums and GELU are float16, two at a time: of 3,300 instructions
// a step 1,000 less, for 2 dB of 69 on noise and of 78 on smooth pictures. The base path sees the picture as two float16
// terms, exact to 22 bits, and its weights (of 256ths) are exact: the picture itself does not go through half precision.
//
// A step, 32 pixels of a warp: 2,300 instructions, 575 cycles of a multiprocessor's issue; 140 tensor core products, 140
// cycles of an H200's and 1,100 of a GeForce's tensor cores; 640 cycles of the 128 bytes that shared memory and L1 give in
// one, a third of them for weights, which is why a step has two rows.
//
// Macros: SCALE 2 or 4; OUTPUT float or __half, the type of what is made; TILES warps a block; BLOCKS on a multiprocessor.

#include <cuda_fp16.h>

#include "tensor.cuh"

constexpr int COLUMNS = 16 * TILES;  // of a strip, halo included
constexpr int HALO = 6;              // columns either side that are not right in the end, and rows above
constexpr int NOUT = 3 * SCALE * SCALE;
constexpr int PAIRS = (NOUT + 15) / 16;  // of 8-channel column groups of the last products

// Weights, in uint4: for each 16 (in) x 16 (out) product, each lane's b of both halves; for depthwise convolutions each
// t's 8 channels of 9 taps and of the bias.
constexpr int CONV_IN = 0, BLOCK = CONV_IN + 3 * 32;
constexpr int CONV1 = 0, CONV2 = CONV1 + 2 * 32, DEPTHWISE = CONV2 + 2 * 32, BLOCK_SIZE = DEPTHWISE + 10 * 4;
constexpr int MID = BLOCK + 3 * BLOCK_SIZE, TAIL = MID + 9 * 32, BASE = TAIL + 25 * PAIRS * 32;
// Biases, in float4: for each 8 channels each t's c of a product.
constexpr int BLOCK_BIAS = 2 * 4, BIAS1 = 0, BIAS2 = BIAS1 + 4 * 4, BIAS_SIZE = BIAS2 + 2 * 4;
constexpr int MID_BIAS = BLOCK_BIAS + 3 * BIAS_SIZE, TAIL_BIAS = MID_BIAS + 2 * 4;

// Shared memory, in bytes: wide rows of 32 channels (4 a block), narrow rows of 16 (4 before conv_mid, 8 before the tail).
constexpr int WIDE = 64 * COLUMNS, NARROW = 32 * COLUMNS;
constexpr int LAST = 3 * 4 * WIDE, MIDDLE = LAST + 4 * NARROW;

typedef unsigned Fragment[4];  // a of a product; of features: channels 2t + i of both pixels, then channels 8 + 2t + i

__device__ __forceinline__ unsigned packed(float x, float y) {
    const __half2 both = __floats2half2_rn(x, y);
    return reinterpret_cast<const unsigned&>(both);
}

__device__ __forceinline__ float2 unpacked(unsigned both) { return __half22float2(reinterpret_cast<const __half2&>(both)); }

__device__ __forceinline__ __half2 halves(unsigned both) { return reinterpret_cast<const __half2&>(both); }

// x Phi(x) of two halves: max(x, 0) + f(|x|), f by a polynomial on [0, 4] in a variable of [-1, 1], so that what the
// roundings add stays as small as f: 2e-4 by the fit and 2.3e-4 (root of mean square) by half precision, all in all.
__device__ __forceinline__ unsigned gelu(__half2 x) {
    const __half2 at = __hfma2(__hmin2(__habs2(x), __float2half2_rn(4.0f)), __float2half2_rn(0.5f), __float2half2_rn(-1.0f));
    __half2 sum = __hfma2(at, __float2half2_rn(0.08167f), __float2half2_rn(-0.0584392f));
    sum = __hfma2(at, sum, __float2half2_rn(-0.2390437f));
    sum = __hfma2(at, sum, __float2half2_rn(0.3257859f));
    sum = __hfma2(at, sum, __float2half2_rn(-0.0142679f));
    sum = __hfma2(at, sum, __float2half2_rn(-0.2218639f));
    sum = __hfma2(at, sum, __float2half2_rn(0.1715782f));
    sum = __hfma2(at, sum, __float2half2_rn(-0.0453509f));
    const __half2 made = __hadd2(__hmax2(x, __float2half2_rn(0.0f)), sum);
    return reinterpret_cast<const unsigned&>(made);
}

// What a lane knows of its place, the same for all rows.
struct Lane {
    int id, t;         // in the warp, and in its group of four
    int wide[4];       // bytes from a wide row's start to its channels at columns -1, 0, 1, 2 of its first pixel
    int narrow[6];     // the same of narrow rows, columns -2 to 3
    int column;        // of the picture, of its first pixel; may lie outside
    int seen[2];       // columns of the picture that it brings into 3x3 products of the picture: t - 1 from its pixels

    __device__ __forceinline__ Lane(int first, int width) {
        id = threadIdx.x % 32;
        t = id % 4;
        const int own = threadIdx.x / 32 * 16 + id / 4 * 2;
        column = first + own;
        // Columns are swapped such that the eight (four) pixels that are read at once lie in different banks.
        for (int i = 0; i < 4; i++) {
            const int at = min(max(own + i - 1, 0), COLUMNS - 1);
            wide[i] = (at ^ (at >> 1 & 1)) * 64 + t * 16;
        }
        for (int i = 0; i < 6; i++) {
            const int at = min(max(own + i - 2, 0), COLUMNS - 1);
            narrow[i] = (at ^ (at >> 2 & 1)) * 32 + t * 8;
        }
        for (int i = 0; i < 2; i++) seen[i] = min(max(column + i + t - 1, 0), width - 1);
    }
};

// Adds both halves of a 16x16 product.
__device__ __forceinline__ void product(float (&low)[4], float (&high)[4], const Fragment& a, const uint4& b) {
    const unsigned first[2] = {b.x, b.y}, second[2] = {b.z, b.w};
    mma_m16n8k16(low, a, first, low);
    mma_m16n8k16(high, a, second, high);
}

// Sums of 8 channels begin as their bias.
__device__ __forceinline__ void begin(float (&sum)[4], const float4* bias, const Lane& lane) {
    const float4 own = __ldg(bias + lane.t);
    sum[0] = own.x, sum[1] = own.y, sum[2] = own.z, sum[3] = own.w;
}

// Features of 16 channels from sums, as a product takes them and as they lie in memory.
__device__ __forceinline__ void pack(Fragment& made, const float (&low)[4], const float (&high)[4]) {
    made[0] = packed(low[0], low[1]);
    made[1] = packed(low[2], low[3]);
    made[2] = packed(high[0], high[1]);
    made[3] = packed(high[2], high[3]);
}

__device__ __forceinline__ void write(float* at, float x, float y) { *reinterpret_cast<float2*>(at) = make_float2(x, y); }
__device__ __forceinline__ void write(__half* at, float x, float y) { *reinterpret_cast<unsigned*>(at) = packed(x, y); }

// A picture's row as 3x3 products take it: 4 columns (the last without weight) of R, G and B, 0. `rest` gets what
// float16 leaves of it.
__device__ __forceinline__ void picture_row(Fragment& a, Fragment& rest, const float* picture, int row, const Lane& lane,
                                            int height, int width) {
    const size_t plane = (size_t)height * width, start = (size_t)min(max(row, 0), height - 1) * width;
    for (int i = 0; i < 2; i++) {
        const float* at = picture + start + lane.seen[i];
        const float r = __ldg(at), g = __ldg(at + plane), b = __ldg(at + 2 * plane);
        a[i] = packed(r, g);
        a[2 + i] = packed(b, 0.0f);
        const float2 rg = unpacked(a[i]), b0 = unpacked(a[2 + i]);
        rest[i] = packed(r - rg.x, g - rg.y);
        rest[2 + i] = packed(b - b0.x, 0.0f);
    }
}

// The first 1x1 convolution of a block on one row of features, into a wide row.
__device__ __forceinline__ void widen(const Fragment& x, const uint4* weights, const float4* bias, char* row,
                                      const Lane& lane) {
    float sum[4][4];
    for (int j = 0; j < 4; j++) begin(sum[j], bias + 4 * j, lane);
    for (int j = 0; j < 2; j++) product(sum[2 * j], sum[2 * j + 1], x, __ldg(weights + 32 * j + lane.id));
    for (int i = 0; i < 2; i++) {
        *reinterpret_cast<uint4*>(row + lane.wide[1 + i]) =
            make_uint4(packed(sum[0][2 * i], sum[0][2 * i + 1]), packed(sum[1][2 * i], sum[1][2 * i + 1]),
                       packed(sum[2][2 * i], sum[2][2 * i + 1]), packed(sum[3][2 * i], sum[3][2 * i + 1]));
    }
}

// The rest of a block on two rows: x, as they came into it, become what comes out. `top` is the row above them.
__device__ __forceinline__ void narrow_down(Fragment (&x)[2], const char* rows, int top, const uint4* weights,
                                            const float4* bias, const Lane& lane) {
    __half2 sum[2][2][4];  // of the row, the pixel, the pair of channels
    const uint4 shift = __ldg(weights + DEPTHWISE + 9 * 4 + lane.t);
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < 2; i++) {
            sum[o][i][0] = halves(shift.x), sum[o][i][1] = halves(shift.y);
            sum[o][i][2] = halves(shift.z), sum[o][i][3] = halves(shift.w);
        }
    for (int r = 0; r < 4; r++) {
        const char* row = rows + (top + r & 3) * WIDE;
        uint4 seen[4];
        for (int i = 0; i < 4; i++) seen[i] = *reinterpret_cast<const uint4*>(row + lane.wide[i]);
        for (int o = 0; o < 2; o++) {
            if (r < o || r > o + 2) continue;
            for (int dx = 0; dx < 3; dx++) {
                const uint4 tap = __ldg(weights + DEPTHWISE + (3 * (r - o) + dx) * 4 + lane.t);
                for (int i = 0; i < 2; i++) {
                    sum[o][i][0] = __hfma2(halves(tap.x), halves(seen[i + dx].x), sum[o][i][0]);
                    sum[o][i][1] = __hfma2(halves(tap.y), halves(seen[i + dx].y), sum[o][i][1]);
                    sum[o][i][2] = __hfma2(halves(tap.z), halves(seen[i + dx].z), sum[o][i][2]);
                    sum[o][i][3] = __hfma2(halves(tap.w), halves(seen[i + dx].w), sum[o][i][3]);
                }
            }
        }
    }
    for (int o = 0; o < 2; o++) {
        float low[4], high[4];
        begin(low, bias + BIAS2, lane);
        begin(high, bias + BIAS2 + 4, lane);
        for (int i = 0; i < 2; i++) {
            const float2 first = unpacked(x[o][i]), second = unpacked(x[o][2 + i]);
            low[2 * i] += first.x, low[2 * i + 1] += first.y;
            high[2 * i] += second.x, high[2 * i + 1] += second.y;
        }
        for (int s = 0; s < 2; s++) {
            const Fragment a = {gelu(sum[o][0][2 * s]), gelu(sum[o][1][2 * s]), gelu(sum[o][0][2 * s + 1]),
                                gelu(sum[o][1][2 * s + 1])};
            product(low, high, a, __ldg(weights + CONV2 + 32 * s + lane.id));
        }
        pack(x[o], low, high);
    }
}

__device__ __forceinline__ void store(char* row, const Fragment& x, const Lane& lane) {
    *reinterpret_cast<uint2*>(row + lane.narrow[2]) = make_uint2(x[0], x[2]);
    *reinterpret_cast<uint2*>(row + lane.narrow[3]) = make_uint2(x[1], x[3]);
}

// A row of features as the products of a convolution of SIZE columns take it, one fragment a column.
template <int SIZE>
__device__ __forceinline__ void load(Fragment (&a)[SIZE], const char* row, const Lane& lane) {
    uint2 seen[SIZE + 1];
    for (int i = 0; i <= SIZE; i++) seen[i] = *reinterpret_cast<const uint2*>(row + lane.narrow[i + (5 - SIZE) / 2]);
    for (int i = 0; i < SIZE; i++) {
        a[i][0] = seen[i].x, a[i][1] = seen[i + 1].x;
        a[i][2] = seen[i].y, a[i][3] = seen[i + 1].y;
    }
}

// A picture (3, height, width) to one of (3, SCALE height, SCALE width). Each block makes `strip` rows, an even number.
extern "C" __global__ void __launch_bounds__(32 * TILES, BLOCKS)
realtime(const float* __restrict__ frame, const float* __restrict__ average, OUTPUT* __restrict__ output,
         const uint4* __restrict__ weights, const float4* __restrict__ biases, int height, int width, int strip) {
    extern __shared__ __align__(16) char shared[];
    const int first_row = blockIdx.y * strip, last_row = min(first_row + strip, height);
    const int first_column = blockIdx.x * (COLUMNS - 2 * HALO);
    const Lane lane(first_column - HALO, width);
    Fragment kept[3] = {};  // for each block, the next one's first, features of the row that has still to go through it

    for (int step = 0; first_row + 2 * step - 12 < last_row; step++) {
        const int row = 2 * step, base_row = first_row - HALO;  // what is `row` here is base_row + row in the picture

        // conv_in on rows `row` and `row` + 1, then into the first block
        Fragment x[2];
        {
            Fragment seen[4], rest;
            for (int r = 0; r < 4; r++)
                picture_row(seen[r], rest, average, base_row + row - 1 + r, lane, height, width);
            float low[2][4], high[2][4];
            for (int o = 0; o < 2; o++) {
                begin(low[o], biases, lane);
                begin(high[o], biases + 4, lane);
            }
            for (int dy = 0; dy < 3; dy++) {
                const uint4 b = __ldg(weights + CONV_IN + 32 * dy + lane.id);
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
                widen(x[o], own + CONV1, bias + BIAS1, rows + (row - block + o & 3) * WIDE, lane);
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
                begin(low[o], biases + MID_BIAS, lane);
                begin(high[o], biases + MID_BIAS + 4, lane);
            }
            for (int r = 0; r < 4; r++) {
                Fragment a[3];
                load(a, shared + LAST + (row - 5 + r & 3) * NARROW, lane);
                for (int o = 0; o < 2; o++) {
                    if (r < o || r > o + 2) continue;
                    for (int dx = 0; dx < 3; dx++)
                        product(low[o], high[o], a[dx], __ldg(weights + MID + (3 * (r - o) + dx) * 32 + lane.id));
                }
            }
            for (int o = 0; o < 2; o++) {
                pack(x[o], low[o], high[o]);
                store(shared + MIDDLE + (row - 4 + o & 7) * NARROW, x[o], lane);
            }
        }
        __syncthreads();
        if (step < 6) continue;  // still above the strip

        // The tail and the base path on rows `row` - 6 and `row` - 5
        float sum[2][2 * PAIRS][4];
        for (int o = 0; o < 2; o++)
            for (int j = 0; j < 2 * PAIRS; j++) begin(sum[o][j], biases + TAIL_BIAS + 4 * j, lane);
        for (int r = 0; r < 6; r++) {
            Fragment a[5];
            load(a, shared + MIDDLE + (row - 8 + r & 7) * NARROW, lane);
            for (int o = 0; o < 2; o++) {
                if (r < o || r > o + 4) continue;
                for (int dx = 0; dx < 5; dx++)
                    for (int j = 0; j < PAIRS; j++)
                        product(sum[o][2 * j], sum[o][2 * j + 1], a[dx],
                                __ldg(weights + TAIL + ((5 * (r - o) + dx) * PAIRS + j) * 32 + lane.id));
            }
        }
        const int made_row = base_row + row - 6;
        for (int r = 0; r < 4; r++) {
            Fragment a, rest;
            picture_row(a, rest, frame, made_row - 1 + r, lane, height, width);
            for (int o = 0; o < 2; o++) {
                if (r < o || r > o + 2) continue;
                for (int j = 0; j < PAIRS; j++) {
                    const uint4 b = __ldg(weights + BASE + ((r - o) * PAIRS + j) * 32 + lane.id);
                    product(sum[o][2 * j], sum[o][2 * j + 1], a, b);
                    product(sum[o][2 * j], sum[o][2 * j + 1], rest, b);
                }
            }
        }

        // Pixel shuffle: channel colour * SCALE^2 + dy * SCALE + dx, of which a lane has pairs along dx
        const int in_strip = lane.column - first_column;
        for (int o = 0; o < 2; o++) {
            const int y = made_row + o;
            if (y >= last_row) continue;
            for (int j = 0; j < 2 * PAIRS; j++) {
                const int channel = 8 * j + 2 * lane.t;
                if (channel >= NOUT) continue;
                const int colour = channel / (SCALE * SCALE), dy = channel / SCALE % SCALE, dx = channel % SCALE;
                OUTPUT* to = output + ((size_t)(colour * height + y) * SCALE + dy) * (SCALE * width) + dx;
                for (int i = 0; i < 2; i++) {
                    const int column = lane.column + i;
                    if (in_strip + i >= 0 && in_strip + i < COLUMNS - 2 * HALO && column < width)
                        write(to + (size_t)column * SCALE, sum[o][j][2 * i], sum[o][j][2 * i + 1]);
                }
            }
        }
        __syncwarp();  // products want all lanes together again
    }
}
