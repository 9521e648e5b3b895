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
// Shared memory is what bounded it first. Of stream, for 64 pixels of a warp (ROWS = 4 of 16): 124 loads of 16 bytes a lane
// before it widens, 160 of the gate and 32 stores, each 4 cycles: 1,260. So sums of 1x1 convolutions are in float16: half
// as many registers, which leaves room for the taps of a depthwise convolution, that would be loaded again for each row.
// Sums that become the picture are float32.
//
// Maps are of the padded picture: RIM pixels of repeated border on each side. Outside of that all is 0, as torch's
// convolutions pad it, at every layer. A pixel's channels are in the order of lanes: t has 8j + 2t + i, 16 bytes.
//
// Macros: STREAM 1 or 0; LIMIT of its products; SCALE 2; OUTPUT float or __half, the type of what is made; ACROSS and
// DOWN the warps of a block, ROWS that a warp has; BLOCKS on a multiprocessor; LAST_DOWN, which is DOWN of the last kernel.

#include "tensor.cuh"
#include "features.cuh"

constexpr int RIM = 8;
constexpr int COLUMNS = 16 * ACROSS, HEIGHT = ROWS * DOWN, LAST_HEIGHT = ROWS * LAST_DOWN;  // of a region
constexpr int NOUT = 3 * SCALE * SCALE;
constexpr int PAIRS = (NOUT + 15) / 16;  // of 8-channel column groups of the last products

// Of a block. Wide channels come in groups of 32; of stream's the half of a group is of either factor.
constexpr int GROUPS = STREAM ? 4 : 2;
constexpr int STEPS = STREAM ? 1 : 2;  // of 16 channels that the last 1x1 convolution takes of a group
constexpr int REACH = STREAM ? 3 : 0;  // pixels that what comes before the wide channels sees on each side
// Weights, in uint4: of 1x1 convolutions for each 16 (in) x 16 (out) each lane's b of both halves, and for each 32 (out)
// each t's bias; of depthwise ones each t's 8 channels of 9 taps and of the bias.
constexpr int DEPTHWISE = 10 * 4, NEAR = 0, FAR = NEAR + DEPTHWISE, FUSE = FAR + DEPTHWISE, FUSE_BIAS = FUSE + 4 * 2 * 32;
constexpr int WIDEN = STREAM ? FUSE_BIAS + 4 : 0, WIDEN_BIAS = WIDEN + GROUPS * 2 * 2 * 32;
constexpr int SPREAD = WIDEN_BIAS + GROUPS * 4, NARROW = SPREAD + GROUPS * DEPTHWISE;
constexpr int NARROW_BIAS = NARROW + GROUPS * STEPS * 2 * 32, BLOCK_SIZE = NARROW_BIAS + 4;
// Of the last kernel; and of its biases, in float4: for each 8 channels each t's c of a product.
constexpr int MID = 0, TAIL = 9 * 2 * 2 * 32, BASE = TAIL + 25 * 2 * PAIRS * 32, LAST_SIZE = BASE + 3 * PAIRS * 32;
constexpr int TAIL_BIAS = 4 * 4;

// A row of pixels in shared memory.
__device__ constexpr int row_size(int columns) { return (columns + 1) / 2 * 2 * PIXEL; }
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

// Rows for ldmatrix, which takes 16 bytes of every second column at once: these lie together.
__device__ constexpr int plane_size(int columns) { return (columns * 8 + 95) / 128 * 128 + 32; }
__device__ constexpr int planes_size(int columns) { return 8 * plane_size(columns) + 32; }
__device__ __forceinline__ int apart(int column, int t, int plane) {
    return (column & 1) * (4 * plane + 16) + t * plane + column / 2 * 16;
}

// A tile of a map into shared memory, its first pixel at `top`, `left` of the map; `at` says where a pixel's t lies.
template <int THREADS, typename Place>
__device__ __forceinline__ void fetch_tile(char* tile, int line, Place at, const uint4* map, int rows, int columns, int top,
                                           int left, int height, int width) {
    for (int i = threadIdx.x; i < rows * columns * 4; i += THREADS) {
        const int t = i % 4, column = i / 4 % columns, row = i / 4 / columns, y = top + row, x = left + column;
        const bool inside = y >= 0 && y < height && x >= 0 && x < width;
        *reinterpret_cast<uint4*>(tile + row * line + at(column, t)) =
            inside ? __ldg(map + ((size_t)y * width + x) * 4 + t) : make_uint4(0, 0, 0, 0);
    }
}

template <int THREADS>
__device__ __forceinline__ const uint4* stage(char* to, const uint4* weights, int count) {
    uint4* own = reinterpret_cast<uint4*>(to);
    for (int i = threadIdx.x; i < count; i += THREADS) own[i] = __ldg(weights + i);
    return own;
}

// 16 of a row's channels, of both pixels, as a product takes them.
__device__ __forceinline__ void gather(Fragment& a, const Channels (&sum)[2], int step) {
    a[0] = bits(sum[0][2 * step]), a[1] = bits(sum[1][2 * step]);
    a[2] = bits(sum[0][2 * step + 1]), a[3] = bits(sum[1][2 * step + 1]);
}

__device__ __forceinline__ void copy(Fragment& a, const Fragment& from) {
    for (int i = 0; i < 4; i++) a[i] = from[i];
}

// Both factors of a group multiplied and clamped.
__device__ __forceinline__ unsigned gated(__half2 x, __half2 y) {
    const __half2 most = __float2half2_rn(LIMIT), least = __float2half2_rn(-LIMIT);
    return bits(__hmin2_nan(__hmax2_nan(__hmul2(x, y), least), most));  // NaN stays, or nobody would hear of it
}

// Adds 32 channels of a 1x1 convolution of 16, on all rows: of each `a` gives the channels.
template <typename Given>
__device__ __forceinline__ void products(Fragment (&sum)[ROWS][2], Given a, const uint4* weights, const Lane& lane) {
    const uint4 b[2] = {weights[lane.id], weights[32 + lane.id]};
    for (int o = 0; o < ROWS; o++) {
        Fragment own;
        a(own, o);
        product(sum[o][0], own, b[0]);
        product(sum[o][1], own, b[1]);
    }
}

// Depthwise 3x3 on all rows of both pixels. `row` is the one above the first, `at` the columns from the left one on.
template <typename Line>
__device__ __forceinline__ void spread(Channels (&sum)[ROWS][2], Line line, const int (&at)[4], const uint4* taps, int t) {
    for (int o = 0; o < ROWS; o++)
        for (int i = 0; i < 2; i++) shift(sum[o][i], taps[9 * 4 + t]);
#pragma unroll
    for (int r = 0; r < ROWS + 2; r++) {
        const char* row = line(r);
        uint4 seen[4];
        for (int i = 0; i < 4; i++) seen[i] = pixel(row + at[i]);
        for (int o = 0; o < ROWS; o++) {
            if (r < o || r > o + 2) continue;
            for (int dx = 0; dx < 3; dx++) {
                const uint4 tap = taps[(3 * (r - o) + dx) * 4 + t];
                for (int i = 0; i < 2; i++) add(sum[o][i], tap, seen[i + dx]);
            }
        }
    }
}

// What a gated block makes of its input before it widens it, from the tile: `row` is the first of the warp's.
__device__ __forceinline__ void fuse(Fragment (&y)[ROWS][2], const char* row, const uint4* weights, const Lane& lane) {
    constexpr int LINE = row_size(COLUMNS + 2 * REACH);
    for (int o = 0; o < ROWS; o++) begin(y[o], weights[FUSE_BIAS + lane.t]);
    Channels sum[ROWS][2];
    int near[4], far[6];  // 3 columns of the tile lie before the region
    lane.places(near, lane.column + 2, COLUMNS + 6);
    spread(sum, [&](int r) { return row + (r - 1) * LINE; }, near, weights + NEAR, lane.t);
    for (int s = 0; s < 2; s++)
        products(y, [&](Fragment& a, int o) { gather(a, sum[o], s); }, weights + FUSE + s * 2 * 32, lane);
    for (int i = 0; i < 6; i++) far[i] = place(lane.column + i / 2 * 3 + i % 2) + 16 * lane.t;
    for (int o = 0; o < ROWS; o++)
        for (int i = 0; i < 2; i++) shift(sum[o][i], weights[FAR + 9 * 4 + lane.t]);
#pragma unroll 1  // unrolled, rows would be loaded once for several taps, but registers spill
    for (int dy = 0; dy < 3; dy++)
#pragma unroll
        for (int dx = 0; dx < 3; dx++) {
            const uint4 tap = weights[FAR + (3 * dy + dx) * 4 + lane.t];
            for (int o = 0; o < ROWS; o++)
                for (int i = 0; i < 2; i++) add(sum[o][i], tap, pixel(row + (o + 3 * dy - 3) * LINE + far[2 * dx + i]));
        }
    for (int s = 0; s < 2; s++)
        products(y, [&](Fragment& a, int o) { gather(a, sum[o], s); }, weights + FUSE + (2 + s) * 2 * 32, lane);
}

// A block of either kind, from map to map, (height, width) pixels.
extern "C" __global__ void __launch_bounds__(32 * ACROSS * DOWN, BLOCKS)
block(const uint4* __restrict__ from, uint4* __restrict__ to, const uint4* __restrict__ weights, int height, int width) {
    extern __shared__ __align__(16) char shared[];
    constexpr int THREADS = 32 * ACROSS * DOWN;
    constexpr int LINE = row_size(COLUMNS), BUFFER = HEIGHT * LINE, TILE = 2 * BUFFER + 16 * BLOCK_SIZE;
    constexpr int TILE_LINE = row_size(COLUMNS + 2 * REACH);
    const int top = blockIdx.y * (HEIGHT - 2) - 1, left = blockIdx.x * (COLUMNS - 2) - 1;  // of the region
    const Lane lane;
    const int first = top + lane.row, column = left + lane.column;  // of the map
    const bool own_column[2] = {column >= 0 && column < width, column + 1 < width};  // column + 1 is never below 0

    const uint4* own = stage<THREADS>(shared + 2 * BUFFER, weights, BLOCK_SIZE);
    const char* tile = shared + TILE + (lane.row + 3) * TILE_LINE;
    Fragment y[ROWS][2];  // what is widened
    if (STREAM)
        fetch_tile<THREADS>(shared + TILE, TILE_LINE, [](int column, int t) { return place(column) + 16 * t; }, from,
                            HEIGHT + 6, COLUMNS + 6, top - 3, left - 3, height, width);
    else
        for (int o = 0; o < ROWS; o++)
            for (int i = 0; i < 2; i++) {
                const bool inside = first + o >= 0 && first + o < height && own_column[i];
                const uint4 x = inside ? __ldg(from + ((size_t)(first + o) * width + column + i) * 4 + lane.t)
                                       : make_uint4(0, 0, 0, 0);
                y[o][0][i] = x.x, y[o][0][2 + i] = x.y, y[o][1][i] = x.z, y[o][1][2 + i] = x.w;
            }
    __syncthreads();
    if (STREAM) fuse(y, tile, own, lane);

    int wide_at[4];
    lane.places(wide_at, lane.column - 1, COLUMNS);
    Fragment made[ROWS][2];
    for (int o = 0; o < ROWS; o++) begin(made[o], own[NARROW_BIAS + lane.t]);
#pragma unroll 1
    for (int group = 0; group < GROUPS; group++) {
        char* buffer = shared + (group & 1) * BUFFER;
        Fragment wide[ROWS][2];
        for (int o = 0; o < ROWS; o++) begin(wide[o], own[WIDEN_BIAS + group * 4 + lane.t]);
        for (int s = 0; s < 2; s++)
            products(wide, [&](Fragment& a, int o) { copy(a, y[o][s]); }, own + WIDEN + (group * 2 + s) * 2 * 32, lane);
        for (int o = 0; o < ROWS; o++) {
            const bool own_row = first + o >= 0 && first + o < height;
            for (int i = 0; i < 2; i++)
                *reinterpret_cast<uint4*>(buffer + (lane.row + o) * LINE + wide_at[1 + i]) =
                    own_row && own_column[i] ? of_pixel(wide[o], i) : make_uint4(0, 0, 0, 0);
        }
        __syncthreads();

        Channels sum[ROWS][2];
        const auto line = [&](int r) { return buffer + min(max(lane.row + r - 1, 0), HEIGHT - 1) * LINE; };
        spread(sum, line, wide_at, own + SPREAD + group * DEPTHWISE, lane.t);
        const uint4* narrow = own + NARROW + group * STEPS * 2 * 32;
        for (int s = 0; s < STEPS; s++)
            products(
                made,
                [&](Fragment& a, int o) {
                    const Channels &p = sum[o][0], &q = sum[o][1];
                    if (STREAM) {
                        a[0] = gated(p[0], p[2]), a[1] = gated(q[0], q[2]);
                        a[2] = gated(p[1], p[3]), a[3] = gated(q[1], q[3]);
                    } else {
                        a[0] = gelu(p[2 * s]), a[1] = gelu(q[2 * s]), a[2] = gelu(p[2 * s + 1]), a[3] = gelu(q[2 * s + 1]);
                    }
                },
                narrow + s * 2 * 32, lane);
    }

    for (int o = 0; o < ROWS; o++) {
        const int row = first + o;
        if (lane.row + o == 0 || lane.row + o == HEIGHT - 1 || row >= height) continue;
        for (int i = 0; i < 2; i++) {
            if (lane.column + i == 0 || lane.column + i == COLUMNS - 1 || !own_column[i]) continue;
            const uint4 x = STREAM ? pixel(tile + o * TILE_LINE + place(lane.column + 3 + i) + 16 * lane.t) : of_pixel(y[o], i);
            const uint4 more = of_pixel(made[o], i);
            to[((size_t)row * width + column + i) * 4 + lane.t] =
                make_uint4(bits(__hadd2(halves(x.x), halves(more.x))), bits(__hadd2(halves(x.y), halves(more.y))),
                           bits(__hadd2(halves(x.z), halves(more.z))), bits(__hadd2(halves(x.w), halves(more.w))));
        }
    }
}

// A picture (3, height, width) to its first map, of RIM pixels more on each side.
extern "C" __global__ void __launch_bounds__(32 * ACROSS * DOWN)
first(const float* __restrict__ picture, uint4* __restrict__ to, const uint4* __restrict__ weights,
      const float4* __restrict__ biases, int height, int width) {
    const Lane lane;
    const int top = blockIdx.y * HEIGHT + lane.row, column = blockIdx.x * COLUMNS + lane.column;  // of the map
    const int map_height = height + 2 * RIM, map_width = width + 2 * RIM;
    const int seen[2] = {column + lane.t - 1, column + lane.t};  // columns of the map that it brings into products
    const int columns[2] = {min(max(seen[0] - RIM, 0), width - 1), min(max(seen[1] - RIM, 0), width - 1)};
    Fragment rows[ROWS + 2];
    for (int r = 0; r < ROWS + 2; r++) {
        const int row = top + r - 1;
        Coming coming;
        coming.fetch(picture, row - RIM, columns, height, width);
        coming.arrive(rows[r]);
        for (int i = 0; i < 2; i++)
            if (row < 0 || row >= map_height || seen[i] < 0 || seen[i] >= map_width) rows[r][i] = rows[r][2 + i] = 0;
    }
    for (int o = 0; o < ROWS; o++) {
        float sum[4][4];
        for (int j = 0; j < 4; j++) begin(sum[j], biases + 4 * j, lane.t);
        for (int dy = 0; dy < 3; dy++)
            for (int pair = 0; pair < 2; pair++)
                product(sum[2 * pair], sum[2 * pair + 1], rows[o + dy], __ldg(weights + (2 * dy + pair) * 32 + lane.id));
        if (top + o >= map_height) continue;
        Fragment made[2];
        for (int pair = 0; pair < 2; pair++) pack(made[pair], sum[2 * pair], sum[2 * pair + 1]);
        for (int i = 0; i < 2; i++)
            if (column + i < map_width) to[((size_t)(top + o) * map_width + column + i) * 4 + lane.t] = of_pixel(made, i);
    }
}

// The last map and the picture to one of (3, SCALE height, SCALE width). conv_mid is made for 2 pixels more on each side
// than the result; both lie so far inside of the rim that nothing outside of the map is seen.
extern "C" __global__ void __launch_bounds__(32 * ACROSS * LAST_DOWN)
last(const uint4* __restrict__ from, const float* __restrict__ frame, OUTPUT* __restrict__ output,
     const uint4* __restrict__ weights, const float4* __restrict__ biases, int height, int width) {
    extern __shared__ __align__(16) char shared[];
    constexpr int THREADS = 32 * ACROSS * LAST_DOWN;
    constexpr int TILE_PLANE = plane_size(COLUMNS + 2), TILE_LINE = planes_size(COLUMNS + 2);
    constexpr int PLANE = plane_size(COLUMNS), LINE = planes_size(COLUMNS);
    constexpr int MIDDLE = (LAST_HEIGHT + 2) * TILE_LINE, OWN = MIDDLE + LAST_HEIGHT * LINE;
    const int top = blockIdx.y * (LAST_HEIGHT - 4) - 2, left = blockIdx.x * (COLUMNS - 4) - 2;  // of the region, in the picture
    const Lane lane;
    const uint4* own = stage<THREADS>(shared + OWN, weights, LAST_SIZE);
    fetch_tile<THREADS>(shared, TILE_LINE, [](int column, int t) { return apart(column, t, TILE_PLANE); }, from,
                        LAST_HEIGHT + 2, COLUMNS + 2, top - 1 + RIM, left - 1 + RIM, height + 2 * RIM, width + 2 * RIM);
    __syncthreads();

    // What a lane tells ldmatrix: of its row of its matrix the pixel, seen by the middle tap, and which 8 channels.
    const int pixel_of = threadIdx.x / 32 % ACROSS * 16 + lane.id % 8 * 2 + lane.id / 8 % 2, t_of = lane.id / 16;
    {
        float sum[ROWS][4][4];
        for (int o = 0; o < ROWS; o++)
            for (int j = 0; j < 4; j++) begin(sum[o][j], biases + 4 * j, lane.t);
#pragma unroll
        for (int dx = 0; dx < 3; dx++) {
            const char* at = shared + lane.row * TILE_LINE + apart(pixel_of + dx, t_of, TILE_PLANE);
            Fragment a[ROWS + 2][2];
            for (int r = 0; r < ROWS + 2; r++)
                for (int s = 0; s < 2; s++) ldmatrix(a[r][s], at + r * TILE_LINE + 2 * s * TILE_PLANE);
            for (int dy = 0; dy < 3; dy++)
                for (int s = 0; s < 2; s++)
                    for (int pair = 0; pair < 2; pair++) {
                        const uint4 b = own[MID + (((3 * dy + dx) * 2 + s) * 2 + pair) * 32 + lane.id];
                        for (int o = 0; o < ROWS; o++) product(sum[o][2 * pair], sum[o][2 * pair + 1], a[o + dy][s], b);
                    }
        }
        for (int o = 0; o < ROWS; o++) {
            Fragment made[2];
            for (int pair = 0; pair < 2; pair++) pack(made[pair], sum[o][2 * pair], sum[o][2 * pair + 1]);
            for (int i = 0; i < 2; i++)
                *reinterpret_cast<uint4*>(shared + MIDDLE + (lane.row + o) * LINE + apart(lane.column + i, lane.t, PLANE)) =
                    of_pixel(made, i);
        }
    }
    __syncthreads();

    float sum[ROWS][2 * PAIRS][4];
    for (int o = 0; o < ROWS; o++)
        for (int j = 0; j < 2 * PAIRS; j++) begin(sum[o][j], biases + TAIL_BIAS + 4 * j, lane.t);
#pragma unroll
    for (int dx = 0; dx < 5; dx++) {
        const char* at = shared + MIDDLE + apart(min(max(pixel_of + dx - 2, 0), COLUMNS - 1), t_of, PLANE);
        Fragment a[ROWS + 4][2];
        for (int r = 0; r < ROWS + 4; r++)
            for (int s = 0; s < 2; s++)
                ldmatrix(a[r][s], at + min(max(lane.row + r - 2, 0), LAST_HEIGHT - 1) * LINE + 2 * s * PLANE);
        for (int dy = 0; dy < 5; dy++)
            for (int s = 0; s < 2; s++)
                for (int j = 0; j < PAIRS; j++) {
                    const uint4 b = own[TAIL + (((5 * dy + dx) * 2 + s) * PAIRS + j) * 32 + lane.id];
                    for (int o = 0; o < ROWS; o++) product(sum[o][2 * j], sum[o][2 * j + 1], a[o + dy][s], b);
                }
    }
    const int column = left + lane.column, first_row = top + lane.row;
    int columns[2];
    for (int i = 0; i < 2; i++) columns[i] = min(max(column + i + lane.t - 1, 0), width - 1);
#pragma unroll
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
        if (lane.row + o < 2 || lane.row + o >= LAST_HEIGHT - 2 || row >= height) continue;
        shuffle_out<SCALE>(output, sum[o], row, column, lane.t, inside, height, width);
    }
}
