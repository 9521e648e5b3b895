// Networks of 32 channels in deployment form: stream (gated blocks) and fine (Nano blocks), a launch a block.
//
//     average -> first: conv_in 3x3 3->32
//             -> stream: 6 x [depthwise 3x3 and depthwise 3x3 dilated by 3, 1x1 64->32, 1x1 32->128, depthwise 3x3,
//                             product of halves, 1x1 64->32, add]
//                fine:   8 x [1x1 32->64, depthwise 3x3, GELU, 1x1 64->32, add]
//             -> last: conv_mid 3x3 32->32 -> tail 5x5 32->3 s^2 --.
//     frame   ----------> base 3x3 3->3 s^2 -----------------------+-> pixel shuffle
//
// Between launches lie 64 bytes a pixel, in two maps that take turns: read and written by a block they are 265 MB of a
// frame of 1920x1080, 0.06 ms of an H200's bandwidth. What is wide (128 channels, 256 bytes) never leaves the
// multiprocessor: a block of threads has a region of the picture, whose wide channels it makes 32 at a time, in shared
// memory, one pixel more on each side than it can make of the result. Of two buffers one is filled while the other is
// read, so that there is one barrier for 32 channels.
//
// Shared memory is what bounds it. Of stream, for 64 pixels of a warp (ROWS = 4 of 16): 156 loads of 16 bytes a lane
// for both narrow depthwise convolutions and 280 for the gate, 40 stores, each 4 cycles: 1,900. Instructions are 2,900,
// 725 cycles of a multiprocessor, tensor core products 256, as many cycles of an H200's.
//
// Maps are of the padded picture: RIM pixels of repeated border on each side. Outside of that all is 0, as torch's
// convolutions pad it, at every layer. A pixel's channels are in the order of lanes: t has 8j + 2t + i, 16 bytes.
//
// Macros: STREAM 1 or 0; SCALE 2 or 4; OUTPUT float or __half, the type of what is made; ACROSS and DOWN the warps of a
// block, ROWS that a warp has; BLOCKS on a multiprocessor.

#include "tensor.cuh"
#include "features.cuh"

constexpr int RIM = 8;
constexpr int THREADS = 32 * ACROSS * DOWN;
constexpr int COLUMNS = 16 * ACROSS, HEIGHT = ROWS * DOWN;  // of a region
constexpr int PIXEL = 64;                                   // bytes of 32 channels
constexpr int NOUT = 3 * SCALE * SCALE;
constexpr int PAIRS = (NOUT + 15) / 16;  // of 8-channel column groups of the last products

// Of a block. Wide channels come in groups of 32; of stream's the half of a group is of either factor.
constexpr int GROUPS = STREAM ? 4 : 2;
constexpr int STEPS = STREAM ? 1 : 2;  // of 16 channels that the last 1x1 convolution takes of a group
constexpr int REACH = STREAM ? 3 : 0;  // pixels that what comes before the wide channels sees on each side
// Weights, in uint4: of 1x1 convolutions for each 16 (in) x 16 (out) each lane's b of both halves; of depthwise ones
// each t's 8 channels of 9 taps and of the bias.
constexpr int DEPTHWISE = 10 * 4, NEAR = 0, FAR = NEAR + DEPTHWISE, FUSE = FAR + DEPTHWISE;
constexpr int WIDEN = STREAM ? FUSE + 4 * 2 * 32 : 0, SPREAD = WIDEN + GROUPS * 2 * 2 * 32;
constexpr int NARROW = SPREAD + GROUPS * DEPTHWISE, BLOCK_SIZE = NARROW + GROUPS * STEPS * 2 * 32;
// Biases, in float4: for each 8 channels each t's c of a product.
constexpr int FUSE_BIAS = 0, WIDEN_BIAS = STREAM ? 4 * 4 : 0, NARROW_BIAS = WIDEN_BIAS + GROUPS * 4 * 4;
// Of the last kernel.
constexpr int MID = 0, TAIL = 9 * 2 * 2 * 32, BASE = TAIL + 25 * 2 * PAIRS * 32, LAST_SIZE = BASE + 3 * PAIRS * 32;
constexpr int TAIL_BIAS = 4 * 4;

// Rows of pixels in shared memory. Columns are swapped such that the pixels that are read at once lie in different banks.
__device__ constexpr int row_size(int columns) { return (columns + 3) / 4 * 4 * PIXEL; }
__device__ __forceinline__ int place(int column) { return (column ^ (column >> 1 & 1)) * PIXEL; }

struct Lane {
    int id, t;
    int row, column;  // in the region, of its first pixel

    __device__ __forceinline__ Lane() {
        const int warp = threadIdx.x / 32;
        id = threadIdx.x % 32;
        t = id % 4;
        row = warp / ACROSS * ROWS;
        column = warp % ACROSS * 16 + id / 4 * 2;
    }

    // Bytes from a row's start to its channels at columns first, first + 1...
    template <int COUNT>
    __device__ __forceinline__ void places(int (&at)[COUNT], int first, int columns) const {
        for (int i = 0; i < COUNT; i++) at[i] = place(min(max(first + i, 0), columns - 1)) + 16 * t;
    }
};

__device__ __forceinline__ uint4 pixel(const char* at) { return *reinterpret_cast<const uint4*>(at); }

// A tile of a map into shared memory, its first pixel at `top`, `left` of the map.
__device__ __forceinline__ void fetch_tile(char* tile, const uint4* map, int rows, int columns, int top, int left, int height,
                                           int width) {
    for (int i = threadIdx.x; i < rows * columns * 4; i += THREADS) {
        const int t = i % 4, column = i / 4 % columns, row = i / 4 / columns, y = top + row, x = left + column;
        const bool inside = y >= 0 && y < height && x >= 0 && x < width;
        *reinterpret_cast<uint4*>(tile + row * row_size(columns) + place(column) + 16 * t) =
            inside ? __ldg(map + ((size_t)y * width + x) * 4 + t) : make_uint4(0, 0, 0, 0);
    }
}

__device__ __forceinline__ const uint4* stage(char* to, const uint4* weights, int count) {
    uint4* own = reinterpret_cast<uint4*>(to);
    for (int i = threadIdx.x; i < count; i += THREADS) own[i] = __ldg(weights + i);
    return own;
}

typedef __half2 Channels[4];  // pairs 8j + 2t, of float16

__device__ __forceinline__ void shift(Channels& sum, const uint4& bias) {
    sum[0] = halves(bias.x), sum[1] = halves(bias.y), sum[2] = halves(bias.z), sum[3] = halves(bias.w);
}

__device__ __forceinline__ void add(Channels& sum, const uint4& tap, const uint4& seen) {
    sum[0] = __hfma2(halves(tap.x), halves(seen.x), sum[0]);
    sum[1] = __hfma2(halves(tap.y), halves(seen.y), sum[1]);
    sum[2] = __hfma2(halves(tap.z), halves(seen.z), sum[2]);
    sum[3] = __hfma2(halves(tap.w), halves(seen.w), sum[3]);
}

__device__ __forceinline__ unsigned bits(__half2 both) { return reinterpret_cast<const unsigned&>(both); }

// 16 of a row's channels, of both pixels, as a product takes them.
__device__ __forceinline__ void gather(Fragment& a, const Channels (&sum)[2], int step) {
    a[0] = bits(sum[0][2 * step]), a[1] = bits(sum[1][2 * step]);
    a[2] = bits(sum[0][2 * step + 1]), a[3] = bits(sum[1][2 * step + 1]);
}

// Both factors of a group multiplied, clamped to what float16 holds.
__device__ __forceinline__ unsigned gated(__half2 x, __half2 y) {
    const __half2 most = __float2half2_rn(65504.0f), least = __float2half2_rn(-65504.0f);
    return bits(__hmax2(__hmin2(__hmul2(x, y), most), least));
}

// Adds 32 channels of a 1x1 convolution.
__device__ __forceinline__ void products(float (&sum)[4][4], const Fragment& a, const uint4* weights, const Lane& lane) {
    product(sum[0], sum[1], a, weights[lane.id]);
    product(sum[2], sum[3], a, weights[32 + lane.id]);
}

__device__ __forceinline__ void begin(float (&sum)[4][4], const float4* bias, const Lane& lane) {
    for (int j = 0; j < 4; j++) begin(sum[j], bias + 4 * j, lane.t);
}

// What a gated block makes of its input before it widens it: of `row` and the next, in the tile, to y.
__device__ __forceinline__ void fused(Fragment (&y)[2][2], const char* row, const int (&at)[8], const uint4* weights,
                                      const float4* biases, const Lane& lane) {
    constexpr int LINE = row_size(COLUMNS + 2 * REACH);
    float made[2][4][4];
    for (int o = 0; o < 2; o++) begin(made[o], biases + FUSE_BIAS, lane);
    Channels sum[2][2];
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < 2; i++) shift(sum[o][i], weights[NEAR + 9 * 4 + lane.t]);
    for (int r = 0; r < 4; r++) {
        uint4 seen[4];
        for (int i = 0; i < 4; i++) seen[i] = pixel(row + (r - 1) * LINE + at[2 + i]);
        for (int o = 0; o < 2; o++) {
            if (r < o || r > o + 2) continue;
            for (int dx = 0; dx < 3; dx++) {
                const uint4 tap = weights[NEAR + (3 * (r - o) + dx) * 4 + lane.t];
                for (int i = 0; i < 2; i++) add(sum[o][i], tap, seen[i + dx]);
            }
        }
    }
    for (int o = 0; o < 2; o++)
        for (int s = 0; s < 2; s++) {
            Fragment a;
            gather(a, sum[o], s);
            products(made[o], a, weights + FUSE + s * 2 * 32, lane);
        }
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < 2; i++) shift(sum[o][i], weights[FAR + 9 * 4 + lane.t]);
#pragma unroll 1
    for (int dy = 0; dy < 3; dy++)
        for (int o = 0; o < 2; o++)
            for (int dx = 0; dx < 3; dx++) {
                const uint4 tap = weights[FAR + (3 * dy + dx) * 4 + lane.t];
                for (int i = 0; i < 2; i++) add(sum[o][i], tap, pixel(row + (o + 3 * dy - 3) * LINE + at[i + 3 * dx]));
            }
    for (int o = 0; o < 2; o++) {
        for (int s = 0; s < 2; s++) {
            Fragment a;
            gather(a, sum[o], s);
            products(made[o], a, weights + FUSE + (2 + s) * 2 * 32, lane);
        }
        pack(y[o][0], made[o][0], made[o][1]);
        pack(y[o][1], made[o][2], made[o][3]);
    }
}

// A block of either kind, from map to map, (height, width) pixels.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
block(const uint4* __restrict__ from, uint4* __restrict__ to, const uint4* __restrict__ weights,
      const float4* __restrict__ biases, int height, int width) {
    extern __shared__ __align__(16) char shared[];
    constexpr int LINE = row_size(COLUMNS), BUFFER = HEIGHT * LINE, TILE = 2 * BUFFER + 16 * BLOCK_SIZE;
    constexpr int TILE_LINE = row_size(COLUMNS + 2 * REACH);
    const int top = blockIdx.y * (HEIGHT - 2) - 1, left = blockIdx.x * (COLUMNS - 2) - 1;  // of the region
    const Lane lane;
    const int first = top + lane.row, column = left + lane.column;  // of the map
    int wide_at[4];
    lane.places(wide_at, lane.column - 1, COLUMNS);
    const bool own_column[2] = {column >= 0 && column < width, column + 1 < width};  // column + 1 is never below 0

    const uint4* own = stage(shared + 2 * BUFFER, weights, BLOCK_SIZE);
    if (STREAM) fetch_tile(shared + TILE, from, HEIGHT + 6, COLUMNS + 6, top - 3, left - 3, height, width);
    __syncthreads();

    Fragment y[ROWS][2];  // what is widened
    int tile_at[8];
    lane.places(tile_at, lane.column, COLUMNS + 6);  // which is 3 columns before the lane's first pixel
    const char* tile = shared + TILE + (lane.row + 3) * TILE_LINE;
    if (STREAM) {
        for (int r = 0; r < ROWS; r += 2) {
            // The weights of both turns are the same, which the compiler may not know: it would keep all in registers.
            const int nothing = height + r >> 31;
            Fragment two[2][2];
            fused(two, tile + r * TILE_LINE, tile_at, own + nothing, biases + nothing, lane);
            for (int o = 0; o < 2; o++)
                for (int s = 0; s < 2; s++)
                    for (int i = 0; i < 4; i++) y[r + o][s][i] = two[o][s][i];
        }
    } else {
        for (int o = 0; o < ROWS; o++)
            for (int i = 0; i < 2; i++) {
                const int row = first + o;
                const bool inside = row >= 0 && row < height && own_column[i];
                const uint4 x = inside ? __ldg(from + ((size_t)row * width + column + i) * 4 + lane.t) : make_uint4(0, 0, 0, 0);
                y[o][0][i] = x.x, y[o][0][2 + i] = x.y, y[o][1][i] = x.z, y[o][1][2 + i] = x.w;
            }
    }

    float made[ROWS][4][4];
    for (int o = 0; o < ROWS; o++) begin(made[o], biases + NARROW_BIAS, lane);
#pragma unroll 1
    for (int group = 0; group < GROUPS; group++) {
        char* buffer = shared + (group & 1) * BUFFER;
        for (int o = 0; o < ROWS; o++) {
            float sum[4][4];
            begin(sum, biases + WIDEN_BIAS + group * 16, lane);
            for (int s = 0; s < 2; s++) products(sum, y[o][s], own + WIDEN + (group * 2 + s) * 2 * 32, lane);
            const bool own_row = first + o >= 0 && first + o < height;
            for (int i = 0; i < 2; i++) {
                const bool inside = own_row && own_column[i];
                *reinterpret_cast<uint4*>(buffer + (lane.row + o) * LINE + wide_at[1 + i]) =
                    inside ? make_uint4(packed(sum[0][2 * i], sum[0][2 * i + 1]), packed(sum[1][2 * i], sum[1][2 * i + 1]),
                                        packed(sum[2][2 * i], sum[2][2 * i + 1]), packed(sum[3][2 * i], sum[3][2 * i + 1]))
                           : make_uint4(0, 0, 0, 0);
            }
        }
        __syncthreads();

        const uint4* taps = own + SPREAD + group * DEPTHWISE;
        Channels spread[ROWS][2];
        for (int o = 0; o < ROWS; o++)
            for (int i = 0; i < 2; i++) shift(spread[o][i], taps[9 * 4 + lane.t]);
        for (int r = 0; r < ROWS + 2; r++) {
            const char* row = buffer + min(max(lane.row + r - 1, 0), HEIGHT - 1) * LINE;
            uint4 seen[4];
            for (int i = 0; i < 4; i++) seen[i] = pixel(row + wide_at[i]);
            for (int o = 0; o < ROWS; o++) {
                if (r < o || r > o + 2) continue;
                for (int dx = 0; dx < 3; dx++) {
                    const uint4 tap = taps[(3 * (r - o) + dx) * 4 + lane.t];
                    for (int i = 0; i < 2; i++) add(spread[o][i], tap, seen[i + dx]);
                }
            }
        }
        const uint4* narrow = own + NARROW + group * STEPS * 2 * 32;
        for (int o = 0; o < ROWS; o++) {
            if (STREAM) {
                const Channels &p = spread[o][0], &q = spread[o][1];
                const Fragment a = {gated(p[0], p[2]), gated(q[0], q[2]), gated(p[1], p[3]), gated(q[1], q[3])};
                products(made[o], a, narrow, lane);
            } else {
                for (int s = 0; s < 2; s++) {
                    const Fragment a = {gelu(spread[o][0][2 * s]), gelu(spread[o][1][2 * s]), gelu(spread[o][0][2 * s + 1]),
                                        gelu(spread[o][1][2 * s + 1])};
                    products(made[o], a, narrow + s * 2 * 32, lane);
                }
            }
        }
    }

    for (int o = 0; o < ROWS; o++) {
        const int row = first + o;
        if (lane.row + o == 0 || lane.row + o == HEIGHT - 1 || row >= height) continue;
        for (int i = 0; i < 2; i++) {
            if (lane.column + i == 0 || lane.column + i == COLUMNS - 1 || !own_column[i]) continue;
            const uint4 x = STREAM ? pixel(tile + o * TILE_LINE + place(lane.column + 3 + i) + 16 * lane.t)
                                   : make_uint4(y[o][0][i], y[o][0][2 + i], y[o][1][i], y[o][1][2 + i]);
            const unsigned before[4] = {x.x, x.y, x.z, x.w};
            unsigned after[4];
            for (int j = 0; j < 4; j++) {
                const float2 had = unpacked(before[j]);
                after[j] = packed(had.x + made[o][j][2 * i], had.y + made[o][j][2 * i + 1]);
            }
            to[((size_t)row * width + column + i) * 4 + lane.t] = make_uint4(after[0], after[1], after[2], after[3]);
        }
    }
}

// A picture (3, height, width) to its first map, of RIM pixels more on each side.
extern "C" __global__ void __launch_bounds__(THREADS)
first(const float* __restrict__ picture, uint4* __restrict__ to, const uint4* __restrict__ weights,
      const float4* __restrict__ biases, int height, int width) {
    const Lane lane;
    const int top = blockIdx.y * HEIGHT + lane.row, column = blockIdx.x * COLUMNS + lane.column;  // of the map
    const int map_height = height + 2 * RIM, map_width = width + 2 * RIM;
    const int seen[2] = {column + lane.t - 1, column + lane.t};  // columns of the map that it brings into products
    const int columns[2] = {min(max(seen[0] - RIM, 0), width - 1), min(max(seen[1] - RIM, 0), width - 1)};
    float made[ROWS][4][4];
    for (int o = 0; o < ROWS; o++) begin(made[o], biases, lane);
    for (int r = 0; r < ROWS + 2; r++) {
        const int row = top + r - 1;
        Coming coming;
        coming.fetch(picture, row - RIM, columns, height, width);
        Fragment a;
        coming.arrive(a);
        for (int i = 0; i < 2; i++)
            if (row < 0 || row >= map_height || seen[i] < 0 || seen[i] >= map_width) a[i] = a[2 + i] = 0;
        for (int o = 0; o < ROWS; o++) {
            if (r < o || r > o + 2) continue;
            product(made[o][0], made[o][1], a, __ldg(weights + (r - o) * 2 * 32 + lane.id));
            product(made[o][2], made[o][3], a, __ldg(weights + ((r - o) * 2 + 1) * 32 + lane.id));
        }
    }
    for (int o = 0; o < ROWS; o++)
        for (int i = 0; i < 2; i++) {
            if (top + o >= map_height || column + i >= map_width) continue;
            to[((size_t)(top + o) * map_width + column + i) * 4 + lane.t] =
                make_uint4(packed(made[o][0][2 * i], made[o][0][2 * i + 1]), packed(made[o][1][2 * i], made[o][1][2 * i + 1]),
                           packed(made[o][2][2 * i], made[o][2][2 * i + 1]), packed(made[o][3][2 * i], made[o][3][2 * i + 1]));
        }
}

// The last map and the picture to one of (3, SCALE height, SCALE width). conv_mid is made for 2 pixels more on each side
// than the result; both lie so far inside of the rim that nothing outside of the map is seen.
extern "C" __global__ void __launch_bounds__(THREADS)
last(const uint4* __restrict__ from, const float* __restrict__ frame, OUTPUT* __restrict__ output,
     const uint4* __restrict__ weights, const float4* __restrict__ biases, int height, int width) {
    extern __shared__ __align__(16) char shared[];
    constexpr int TILE_LINE = row_size(COLUMNS + 2), LINE = row_size(COLUMNS);
    constexpr int MIDDLE = (HEIGHT + 2) * TILE_LINE, OWN = MIDDLE + HEIGHT * LINE;
    const int top = blockIdx.y * (HEIGHT - 4) - 2, left = blockIdx.x * (COLUMNS - 4) - 2;  // of the region, in the picture
    const Lane lane;
    const uint4* own = stage(shared + OWN, weights, LAST_SIZE);
    fetch_tile(shared, from, HEIGHT + 2, COLUMNS + 2, top - 1 + RIM, left - 1 + RIM, height + 2 * RIM, width + 2 * RIM);
    __syncthreads();

    {
        int at[4];
        lane.places(at, lane.column, COLUMNS + 2);
        float sum[ROWS][4][4];
        for (int o = 0; o < ROWS; o++) begin(sum[o], biases, lane);
        for (int r = 0; r < ROWS + 2; r++) {
            uint4 seen[4];
            for (int i = 0; i < 4; i++) seen[i] = pixel(shared + (lane.row + r) * TILE_LINE + at[i]);
            for (int dx = 0; dx < 3; dx++) {
                const uint4 &x = seen[dx], &y = seen[dx + 1];
                const Fragment a[2] = {{x.x, y.x, x.y, y.y}, {x.z, y.z, x.w, y.w}};
                for (int o = 0; o < ROWS; o++) {
                    if (r < o || r > o + 2) continue;
                    for (int s = 0; s < 2; s++)
                        products(sum[o], a[s], own + MID + ((3 * (r - o) + dx) * 2 + s) * 2 * 32, lane);
                }
            }
        }
        lane.places(at, lane.column - 1, COLUMNS);
        for (int o = 0; o < ROWS; o++)
            for (int i = 0; i < 2; i++)
                *reinterpret_cast<uint4*>(shared + MIDDLE + (lane.row + o) * LINE + at[1 + i]) =
                    make_uint4(packed(sum[o][0][2 * i], sum[o][0][2 * i + 1]), packed(sum[o][1][2 * i], sum[o][1][2 * i + 1]),
                               packed(sum[o][2][2 * i], sum[o][2][2 * i + 1]), packed(sum[o][3][2 * i], sum[o][3][2 * i + 1]));
    }
    __syncthreads();

    int at[6];
    lane.places(at, lane.column - 2, COLUMNS);
    float sum[ROWS][2 * PAIRS][4];
    for (int o = 0; o < ROWS; o++)
        for (int j = 0; j < 2 * PAIRS; j++) begin(sum[o][j], biases + TAIL_BIAS + 4 * j, lane.t);
    for (int r = 0; r < ROWS + 4; r++) {
        const char* row = shared + MIDDLE + min(max(lane.row + r - 2, 0), HEIGHT - 1) * LINE;
        uint4 seen[6];
        for (int i = 0; i < 6; i++) seen[i] = pixel(row + at[i]);
        for (int dx = 0; dx < 5; dx++) {
            const uint4 &x = seen[dx], &y = seen[dx + 1];
            const Fragment a[2] = {{x.x, y.x, x.y, y.y}, {x.z, y.z, x.w, y.w}};
            for (int o = 0; o < ROWS; o++) {
                if (r < o || r > o + 4) continue;
                for (int s = 0; s < 2; s++)
                    for (int j = 0; j < PAIRS; j++)
                        product(sum[o][2 * j], sum[o][2 * j + 1], a[s],
                                own[TAIL + (((5 * (r - o) + dx) * 2 + s) * PAIRS + j) * 32 + lane.id]);
            }
        }
    }
    const int column = left + lane.column, first_row = top + lane.row;
    int columns[2];
    for (int i = 0; i < 2; i++) columns[i] = min(max(column + i + lane.t - 1, 0), width - 1);
    for (int r = 0; r < ROWS + 2; r++) {
        Coming coming;
        Fragment a, rest;
        coming.fetch(frame, first_row + r - 1, columns, height, width);
        coming.arrive(a);
        coming.rest(rest, a);
        for (int o = 0; o < ROWS; o++) {
            if (r < o || r > o + 2) continue;
            for (int j = 0; j < PAIRS; j++) {
                const uint4 b = own[BASE + ((r - o) * PAIRS + j) * 32 + lane.id];
                product(sum[o][2 * j], sum[o][2 * j + 1], a, b);
                product(sum[o][2 * j], sum[o][2 * j + 1], rest, b);
            }
        }
    }
    const bool inside[2] = {lane.column >= 2 && lane.column < COLUMNS - 2 && column < width,
                            lane.column >= 2 && lane.column < COLUMNS - 2 && column + 1 < width};
    for (int o = 0; o < ROWS; o++) {
        const int row = first_row + o;
        if (lane.row + o < 2 || lane.row + o >= HEIGHT - 2 || row >= height) continue;
        shuffle_out<SCALE>(output, sum[o], row, column, lane.t, inside, height, width);
    }
}
