// Video planes to R'G'B' tensors and back, and the temporal window: videosr/color.py and videosr/temporal.py, fused.
//
// One source is compiled for each kind of picture; what the compiler has to know is defined by cuda_planes.py:
//
//   SAMPLE            type of the source's words: unsigned char or unsigned short
//   FAMILY            of the source: 0 gray, 1 Y'CbCr, 2 R'G'B'
//   LOG2_W, LOG2_H    its chroma subsampling
//   INPUT, OUTPUT     type of the network's tensors: float or __half
//   MADE              type of the result's words
//   MADE_FAMILY, MADE_LOG2_W, MADE_LOG2_H
//   APART             1: the result's chroma is interpolated from the source's, the network gives luma only
//
// Numbers (matrix, levels, taps) come with each launch, in a structure that is a parameter: constant memory, read by a
// whole warp at once. All arithmetic is float32 in the order of color.py, and compiled without fused multiply-add, so
// that the results are the same bits.
//
// Planes have a pitch in bytes and a step in samples, 1 where those of a row lie side by side.

#include <cuda_fp16.h>

#ifndef __CUDACC__
#define __grid_constant__  // tests run this on the host too
#endif

constexpr int DEPTH = 4;    // frames of a window at most: temporal.DEPTH
constexpr int PHASES = 32;  // of an interpolation at most
constexpr int TAPS = 4;     // of Catmull and Rom's cubic
constexpr int MEAN = 5;     // samples that the mean over four luma samples' width can touch

constexpr int FW = 1 << LOG2_W, FH = 1 << LOG2_H;
constexpr int MADE_FW = 1 << MADE_LOG2_W, MADE_FH = 1 << MADE_LOG2_H;

struct Plane {
    unsigned char* data;
    int pitch;  // bytes from row to row
    int step;   // samples from column to column
};

// Interpolation along an axis: output n = sum over j of taps[p][j] * input[n / period * advance + start[p] + j],
// p = n % period; samples outside are those at the edge.
struct Axis {
    int size;  // input samples
    int period;
    int advance;
    int start[PHASES];
    float taps[PHASES][TAPS];
};

// The mean along an axis: output n = sum over j of taps[j] * input[n * factor + first + j].
struct Mean {
    int first;
    int count;
    float taps[MEAN];
};

struct Levels {
    float offset[3];
    float gain[3];
};

__device__ inline int inside(int at, int size) { return at < 0 ? 0 : at < size ? at : size - 1; }

template <typename T>
__device__ inline T& sample(const Plane& plane, int y, int x) {
    return reinterpret_cast<T*>(plane.data + static_cast<long long>(y) * plane.pitch)[static_cast<long long>(x) * plane.step];
}

__device__ inline float widened(float x) { return x; }
__device__ inline float widened(__half x) { return __half2float(x); }
__device__ inline void narrow(float& to, float x) { to = x; }
__device__ inline void narrow(__half& to, float x) { to = __float2half(x); }

// Two neighbours in one access where their place allows it.
template <typename T>
struct alignas(2 * sizeof(T)) Pair {
    T first, second;
};

template <typename T>
__device__ inline bool pairs(const T* at) {
    return reinterpret_cast<unsigned long long>(at) % sizeof(Pair<T>) == 0;
}

template <typename T>
__device__ inline void write(T* at, T first, T second, bool both) {
    if (both && pairs(at)) {
        *reinterpret_cast<Pair<T>*>(at) = Pair<T>{first, second};
    } else {
        at[0] = first;
        if (both) at[1] = second;
    }
}

// ---------------------------------------------------------------------------------------------------- to the network

struct Source {
    Plane frame[3];
    Plane average[3];  // float codes; where there is a window
    float share;       // how far the frame is moved towards the average
    Levels levels;
};

// A sample's value, in [0, 1] or [-1/2, 1/2]. With a window `of` 0 is the frame moved towards the average, 1 the average.
template <bool WINDOW>
__device__ inline float value(const Source& source, int of, int plane, int y, int x) {
    float code = static_cast<float>(sample<const SAMPLE>(source.frame[plane], y, x));
    if (WINDOW) {
        const float average = sample<const float>(source.average[plane], y, x);
        code = of ? average : code + source.share * (average - code);
    }
    return (code - source.levels.offset[plane]) * source.levels.gain[plane];
}

struct ToTensors {
    Source source;
    INPUT* tensors[2];  // (3, rows, columns); the second for the detail path, or null
    int height, width;  // of the picture
    int rows, columns;  // of the tensors; the picture's last row and column are repeated
    float matrix[9];
    Axis across, down;  // of chroma
};

constexpr int TILE_W = 64, TILE_H = 16;  // pixels a block of (32, 8) threads makes
[[maybe_unused]] constexpr int SPAN = TILE_W / FW + TAPS + 1;  // columns of chroma under a tile, and those that taps reach

// Per pixel of 8-bit 4:2:0: 1.5 bytes read, and 6 (float16) or 12 (float32) written for each tensor; of a window 7.5
// read, and two tensors written.
template <bool WINDOW>
__device__ inline void to_tensors_of(const ToTensors& job) {
    constexpr int PICTURES = WINDOW ? 2 : 1;
    const int left = blockIdx.x * TILE_W, top = blockIdx.y * TILE_H;
#if FAMILY == 1 && (LOG2_W > 0 || LOG2_H > 0)
    // Chroma interpolated downwards, for the tile's rows and the columns that the taps across want.
    __shared__ float chroma[PICTURES][2][TILE_H][SPAN];
    const int begin = inside(left, job.width);
    const int base = LOG2_W ? begin / FW + job.across.start[begin % FW] : begin;
    for (int at = threadIdx.y * blockDim.x + threadIdx.x; at < TILE_H * SPAN; at += blockDim.x * blockDim.y) {
        const int row = at / SPAN, column = at % SPAN;
        const int y = inside(top + row, job.height), x = inside(base + column, job.across.size);
        for (int of = 0; of < PICTURES; of++) {
            for (int c = 0; c < 2; c++) {
                float sum = 0;
                if (LOG2_H) {
                    const int start = y / FH + job.down.start[y % FH];
                    for (int j = 0; j < TAPS; j++) {
                        const int from = inside(start + j, job.down.size);
                        sum += value<WINDOW>(job.source, of, 1 + c, from, x) * job.down.taps[y % FH][j];
                    }
                } else {
                    sum = value<WINDOW>(job.source, of, 1 + c, y, x);
                }
                chroma[of][c][row][column] = sum;
            }
        }
    }
    __syncthreads();
#endif
    const long long plane = static_cast<long long>(job.rows) * job.columns;
    for (int row = threadIdx.y; row < TILE_H; row += blockDim.y) {
        const int to_y = top + row, to_x = left + 2 * threadIdx.x;
        if (to_y >= job.rows || to_x >= job.columns) continue;
        const int y = inside(to_y, job.height);
        for (int of = 0; of < PICTURES; of++) {
            if (!job.tensors[of]) continue;
            float rgb[2][3];
            for (int k = 0; k < 2; k++) {
                const int x = inside(to_x + k, job.width);
                float v[3];
                v[0] = value<WINDOW>(job.source, of, 0, y, x);
#if FAMILY == 0
                rgb[k][0] = rgb[k][1] = rgb[k][2] = v[0];
#else
                for (int c = 1; c < 3; c++) {
#if FAMILY == 1 && LOG2_W > 0
                    const int first = x / FW + job.across.start[x % FW] - base;
                    v[c] = 0;
                    for (int j = 0; j < TAPS; j++) v[c] += chroma[of][c - 1][row][first + j] * job.across.taps[x % FW][j];
#elif FAMILY == 1 && LOG2_H > 0
                    v[c] = chroma[of][c - 1][row][x - base];
#else
                    v[c] = value<WINDOW>(job.source, of, c, y, x);
#endif
                }
                for (int i = 0; i < 3; i++) {
                    const float* m = job.matrix + 3 * i;
                    rgb[k][i] = FAMILY == 2 ? v[i] : m[0] * v[0] + m[1] * v[1] + m[2] * v[2];
                }
#endif
            }
            for (int i = 0; i < 3; i++) {
                INPUT a, b;
                narrow(a, rgb[0][i]);
                narrow(b, rgb[1][i]);
                const long long at = i * plane + static_cast<long long>(to_y) * job.columns + to_x;
                const bool both = to_x + 1 < job.columns;
                write(job.tensors[of] + at, a, b, both);
                if (!WINDOW && job.tensors[1]) write(job.tensors[1] + at, a, b, both);
            }
        }
    }
}

extern "C" __global__ void to_tensors(const __grid_constant__ ToTensors job) { to_tensors_of<false>(job); }
extern "C" __global__ void window_to_tensors(const __grid_constant__ ToTensors job) { to_tensors_of<true>(job); }

// -------------------------------------------------------------------------------------------------------- the window

struct Window {
    Plane frames[DEPTH][3];  // newest first
    Plane average[3];        // float codes
    int count;               // of the frames
    int height, width;
    float likeness;  // 1 / (9 * threshold)
};

// temporal.average of Mode.ADAPTIVE. Per pixel of 8-bit 4:2:0: 1.5 bytes read a frame, 6 written.
extern "C" __global__ void average_window(const __grid_constant__ Window job) {
    constexpr int ACROSS = TILE_W, DOWN = TILE_H, THREADS = 256, OWN = ACROSS * DOWN / THREADS;
    constexpr int COLORS = FAMILY == 0 ? 1 : 3;
    constexpr int CELL_W = FAMILY == 1 ? FW : 1, CELL_H = FAMILY == 1 ? FH : 1;
    __shared__ float apart[DOWN + 2][ACROSS + 2];  // |x_k - x_0|
    __shared__ float weights[DOWN][ACROSS];
    const int left = blockIdx.x * ACROSS, top = blockIdx.y * DOWN;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    float sums[COLORS][OWN], totals[2][OWN];  // each thread has OWN pixels, and OWN or fewer samples of chroma
    for (int k = 0; k < OWN; k++) {
        totals[0][k] = totals[1][k] = 1;
        for (int c = 0; c < COLORS; c++) {
            const int w = c ? CELL_W : 1, h = c ? CELL_H : 1, columns = ACROSS / w;
            const int at = thread + k * THREADS, y = top / h + at / columns, x = left / w + at % columns;
            const bool there = at < columns * (DOWN / h) && y * h < job.height && x * w < job.width;
            sums[c][k] = there ? static_cast<float>(sample<const SAMPLE>(job.frames[0][c], y, x)) : 0;
        }
    }
#pragma unroll  // takes fewer registers
    for (int of = 1; of < DEPTH; of++) {
        if (of >= job.count) break;
        for (int at = thread; at < (DOWN + 2) * (ACROSS + 2); at += THREADS) {
            const int row = at / (ACROSS + 2), column = at % (ACROSS + 2);
            const int y = inside(top + row - 1, job.height), x = inside(left + column - 1, job.width);
            const int other = sample<const SAMPLE>(job.frames[of][0], y, x);
            const int own = sample<const SAMPLE>(job.frames[0][0], y, x);
            apart[row][column] = static_cast<float>(other < own ? own - other : other - own);
        }
        __syncthreads();
        for (int k = 0; k < OWN; k++) {
            const int row = (thread + k * THREADS) / ACROSS, column = (thread + k * THREADS) % ACROSS;
            float d = 0;
            for (int i = 0; i < 3; i++) {
                d += apart[row][column + i] + apart[row + 1][column + i] + apart[row + 2][column + i];
            }
            d *= job.likeness;
            const float weight = expf(-(d * d));
            weights[row][column] = weight;
            totals[0][k] += weight;
            const int y = top + row, x = left + column;
            if (y < job.height && x < job.width) {
                sums[0][k] += weight * static_cast<float>(sample<const SAMPLE>(job.frames[of][0], y, x));
            }
        }
        __syncthreads();
        for (int k = 0; k < OWN && COLORS > 1; k++) {
            constexpr int COLUMNS = ACROSS / CELL_W;
            const int row = (thread + k * THREADS) / COLUMNS, column = (thread + k * THREADS) % COLUMNS;
            const int y = top + row * CELL_H, x = left + column * CELL_W;
            if (row >= DOWN / CELL_H || y >= job.height || x >= job.width) continue;
            float weight = 0;  // the mean over the pixels that the sample covers
            for (int i = 0; i < CELL_H; i++) {
                for (int j = 0; j < CELL_W; j++) {
                    weight += weights[inside(y + i, job.height) - top][inside(x + j, job.width) - left];
                }
            }
            weight /= CELL_H * CELL_W;
            totals[1][k] += weight;
            for (int c = 1; c < COLORS; c++) {
                const int code = sample<const SAMPLE>(job.frames[of][c], y / CELL_H, x / CELL_W);
                sums[c][k] += weight * static_cast<float>(code);
            }
        }
    }
    for (int k = 0; k < OWN; k++) {
        for (int c = 0; c < COLORS; c++) {
            const int w = c ? CELL_W : 1, h = c ? CELL_H : 1, columns = ACROSS / w;
            const int at = thread + k * THREADS, y = top / h + at / columns, x = left / w + at % columns;
            if (at < columns * (DOWN / h) && y * h < job.height && x * w < job.width) {
                sample<float>(job.average[c], y, x) = sums[c][k] / totals[c ? 1 : 0][k];
            }
        }
    }
}

// -------------------------------------------------------------------------------------------------- from the network

struct ToPlanes {
    const OUTPUT* tensor;  // (3, rows, columns)
    int rows, columns;
    int height, width;  // of the picture, which is the tensor's upper left part
    Plane made[3];
    int dither;
    float peak;  // the highest code
    Levels levels;
    float matrix[9];
    Mean across, down;  // of chroma
    Source source;      // chroma that is interpolated: the picture that this is an enlargement of
    Axis source_across, source_down;
    unsigned char* finite;  // set to 0 if something is NaN or infinite
};

// Codes, rounded half up or with the ordered dither of color.BAYER, whose 8x8 thresholds are the bits of x ^ y and y,
// the last one first, in turn.
__device__ inline MADE quantised(const ToPlanes& job, int plane, float value, int y, int x) {
    float threshold = 0.5f;
    if (job.dither) {
        const int a = x ^ y;
        const int rank = (a & 1) << 5 | (y & 1) << 4 | (a & 2) << 2 | (y & 2) << 1 | (a & 4) >> 1 | (y & 4) >> 2;
        threshold = (rank + 0.5f) / 64;
    }
    const float code = floorf(value * job.levels.gain[plane] + job.levels.offset[plane] + threshold);
    return static_cast<MADE>(fminf(fmaxf(code, 0), job.peak));
}

__device__ inline float mixed(const float* m, const float* rgb) { return m[0] * rgb[0] + m[1] * rgb[1] + m[2] * rgb[2]; }

__device__ inline void read(const ToPlanes& job, int y, int x, float* rgb) {
    const long long plane = static_cast<long long>(job.rows) * job.columns;
    const OUTPUT* at = job.tensor + static_cast<long long>(y) * job.columns + x;
    for (int i = 0; i < 3; i++) rgb[i] = widened(at[i * plane]);
}

// Both chroma values of a sample: the mean of what the network gives, or the source's interpolated.
template <bool WINDOW>
__device__ inline void chroma_of(const ToPlanes& job, int y, int x, float* values) {
    values[0] = values[1] = 0;
#if APART
    const Axis &across = job.source_across, &down = job.source_down;
    const int p = x % across.period, q = y % down.period;
    const int first = x / across.period * across.advance + across.start[p];
    const int start = y / down.period * down.advance + down.start[q];
    for (int j = 0; j < TAPS; j++) {
        const int from = inside(first + j, across.size);
        float sums[2] = {0, 0};
        for (int i = 0; i < TAPS; i++) {
            const int row = inside(start + i, down.size);
            for (int c = 0; c < 2; c++) sums[c] += value<WINDOW>(job.source, 0, 1 + c, row, from) * down.taps[q][i];
        }
        for (int c = 0; c < 2; c++) values[c] += sums[c] * across.taps[p][j];
    }
#else
    for (int j = 0; j < job.across.count; j++) {
        const int from = inside(x * MADE_FW + job.across.first + j, job.width);
        float sums[2] = {0, 0};
        for (int i = 0; i < job.down.count; i++) {
            float rgb[3];
            read(job, inside(y * MADE_FH + job.down.first + i, job.height), from, rgb);
            for (int c = 0; c < 2; c++) sums[c] += mixed(job.matrix + 3 * (1 + c), rgb) * job.down.taps[i];
        }
        for (int c = 0; c < 2; c++) values[c] += sums[c] * job.across.taps[j];
    }
#endif
}

// A thread makes a cell: two luma samples or more side by side, as many rows as chroma has one of, and their chroma.
// Per pixel of the result, 8-bit 4:2:0: 6 (float16) or 12 (float32) bytes read, 1.5 written; chroma apart reads 0.5
// more of every pixel of the source.
template <bool WINDOW>
__device__ inline void to_planes_of(const ToPlanes& job) {
    constexpr int CELL_W = MADE_FAMILY == 1 && MADE_FW > 2 ? MADE_FW : 2;
    constexpr int CELL_H = MADE_FAMILY == 1 ? MADE_FH : 1;
    const int left = (blockIdx.x * blockDim.x + threadIdx.x) * CELL_W;
    const int top = (blockIdx.y * blockDim.y + threadIdx.y) * CELL_H;
    if (left >= job.width || top >= job.height) return;
    bool finite = true;
    for (int y = top; y < top + CELL_H && y < job.height; y++) {
        for (int x = left; x < left + CELL_W && x < job.width; x += 2) {
            const bool both = x + 1 < job.width;
            MADE codes[3][2];
            for (int k = 0; k < 2; k++) {
                float rgb[3];
                read(job, y, both ? x + k : x, rgb);
                for (int i = 0; i < 3; i++) finite &= fabsf(rgb[i]) <= 3.4028235e38f;
                if (MADE_FAMILY == 2) {
                    for (int i = 0; i < 3; i++) codes[i][k] = quantised(job, i, rgb[i], y, x + k);
                } else {
                    codes[0][k] = quantised(job, 0, mixed(job.matrix, rgb), y, x + k);
                }
            }
            for (int i = 0; i < (MADE_FAMILY == 2 ? 3 : 1); i++) {
                write(&sample<MADE>(job.made[i], y, x), codes[i][0], codes[i][1], both);
            }
        }
    }
    if (!finite) *job.finite = 0;
#if MADE_FAMILY == 1
    for (int x = left / MADE_FW; x < (left + CELL_W) / MADE_FW && x * MADE_FW < job.width; x++) {
        float values[2];
        chroma_of<WINDOW>(job, top / MADE_FH, x, values);
        for (int c = 0; c < 2; c++) {
            sample<MADE>(job.made[1 + c], top / MADE_FH, x) = quantised(job, 1 + c, values[c], top / MADE_FH, x);
        }
    }
#endif
}

extern "C" __global__ void to_planes(const __grid_constant__ ToPlanes job) { to_planes_of<false>(job); }
extern "C" __global__ void window_to_planes(const __grid_constant__ ToPlanes job) { to_planes_of<true>(job); }
