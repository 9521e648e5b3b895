// What is asked of a frame before it is upscaled: the thumbnail by which cuts are found (videosr/scenes.py), the sums by
// which noise is measured (videosr/temporal.py), and whether it repeats the frame before it.
//
// SAMPLE is the type of a plane's words: unsigned char or unsigned short. All sums are of integers, so they are the same
// wherever they are made. Little is written, 41 KB a frame, so that one small download answers all of it.

constexpr int BLOCK = 8;  // samples a side of a block whose noise is measured
constexpr unsigned ALL = 0xffffffffu;

struct Plane {
    const unsigned char* data;
    int pitch;  // bytes from row to row
    int step;   // samples from column to column
    int rows, columns;
};

__device__ inline SAMPLE sample(const Plane& plane, int y, int x) {
    const long long at = static_cast<long long>(y) * plane.pitch;
    return reinterpret_cast<const SAMPLE*>(plane.data + at)[static_cast<long long>(x) * plane.step];
}

template <typename T>
__device__ inline T warp_sum(T value) {
    for (int by = 16; by; by /= 2) value += __shfl_xor_sync(ALL, value, by);
    return value;
}

struct Thumbnail {
    Plane plane;
    int cell;   // samples a side
    int step;   // every how many rows are summed
    int rows, columns;
    unsigned* sums;  // (rows, columns)
};

// The sums of cells, a warp for each. 1 byte or 2 read per pixel, or of one row in `step`.
extern "C" __global__ void thumbnail(const Thumbnail job) {
    const int lane = threadIdx.x, at = blockIdx.x * blockDim.y + threadIdx.y;
    if (at >= job.rows * job.columns) return;
    const int top = at / job.columns * job.cell, left = at % job.columns * job.cell;
    unsigned sum = 0;
    for (int y = 0; y < job.cell; y += job.step) {
        for (int x = lane; x < job.cell; x += 32) sum += sample(job.plane, top + y, left + x);
    }
    sum = warp_sum(sum);
    if (lane == 0) job.sums[at] = sum;
}

struct Noise {
    Plane newer, older;
    int rows, columns;  // of blocks, spread evenly
    long long* sums;    // (rows, columns, 7)
};

__device__ inline long long difference(const Noise& job, int y, int x) {
    return static_cast<long long>(sample(job.newer, y, x)) - sample(job.older, y, x);
}

// Of each block x of 8x8 samples, of which a warp has two each, and of its difference d from the frame before: the sums
// of x, x^2, x times twice its row's and its column's distance from the middle, d, d^2, and d times its neighbours to the
// right and below.
extern "C" __global__ void noise(const Noise job) {
    const int lane = threadIdx.x, at = blockIdx.x * blockDim.y + threadIdx.y;
    if (at >= job.rows * job.columns) return;
    const int top = at / job.columns * (job.newer.rows / BLOCK) / job.rows * BLOCK;
    const int left = at % job.columns * (job.newer.columns / BLOCK) / job.columns * BLOCK;
    long long sums[7] = {0, 0, 0, 0, 0, 0, 0};
    for (int k = lane; k < BLOCK * BLOCK; k += 32) {
        const int y = k / BLOCK, x = k % BLOCK;
        const long long code = sample(job.newer, top + y, left + x);
        const long long apart = difference(job, top + y, left + x);
        sums[0] += code;
        sums[1] += code * code;
        sums[2] += code * (2 * y - (BLOCK - 1));
        sums[3] += code * (2 * x - (BLOCK - 1));
        sums[4] += apart;
        sums[5] += apart * apart;
        if (x < BLOCK - 1) sums[6] += apart * difference(job, top + y, left + x + 1);
        if (y < BLOCK - 1) sums[6] += apart * difference(job, top + y + 1, left + x);
    }
    for (int i = 0; i < 7; i++) {
        const long long sum = warp_sum(sums[i]);
        if (lane == 0) job.sums[at * 7 + i] = sum;
    }
}

struct Apart {
    Plane newer, older;
    unsigned* apart;  // set to 1 if a sample differs
};

// Whether two planes differ, a row of the plane a warp. 2 or 4 bytes read per sample; rows after a difference was found
// are not read.
extern "C" __global__ void compare(const Apart job) {
    const int y = blockIdx.x * blockDim.y + threadIdx.y;
    if (y >= job.newer.rows || *job.apart) return;
    bool differs = false;
    for (int x = threadIdx.x; x < job.newer.columns; x += 32) {
        differs |= sample(job.newer, y, x) != sample(job.older, y, x);
    }
    if (differs) *job.apart = 1;
}
