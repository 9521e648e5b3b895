// How a launch runs: the threads of a block as fibers, and the calling convention of cuLaunchKernel.
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <utility>

namespace cuda_host {

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Fiber {
    jmp_buf at;
    ucontext_t context;
    bool alive = false;  // has its stack, and waits for work there
    State state = DONE;
    uint3 index;
    unsigned warp, lane;
};

/// Lanes of a warp that come together in a collective.
struct Group {
    unsigned mask = 0, arrived = 0;
    void (*work)(unsigned mask, void** slots) = nullptr;
    void* slots[32];
};

constexpr size_t STACK = 1 << 17, GUARD = 1 << 20;  // bytes
constexpr size_t SHARED = 232448;                  // bytes: the most that a block of any GPU has
constexpr unsigned THREADS = 1024, GROUPS = 4, BLOCKS = 1 << 20;

static Fiber fibers[THREADS];
static Group groups[THREADS / 32][GROUPS];
static Fiber* current;
static jmp_buf scheduler;
static sigjmp_buf failure;
static char* message;
static size_t message_size;
static unsigned arrived, threads;
static int votes, verdict;
static void (*thunk)(void*);
static void* closure;
static char* dynamic_end;  // of shared memory, where a page begins that nobody may touch
static char* dynamic_start;
static const char* kernel_name;

[[noreturn]] static void fail(const char* what) {
    snprintf(message, message_size, "%s: block (%u, %u, %u), thread (%u, %u, %u): %s", kernel_name, blockIdx.x,
             blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, what);
    siglongjmp(failure, 1);
}

static __attribute__((noinline)) void pause() {
    if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

static void fiber_main() {
    for (;;) {
        thunk(closure);
        current->state = DONE;
        pause();
    }
}

static __attribute__((noinline)) void resume(Fiber& fiber) {
    current = &fiber;
    threadIdx = fiber.index;
    if (_setjmp(scheduler)) return;
    if (fiber.alive) _longjmp(fiber.at, 1);
    fiber.alive = true;
    setcontext(&fiber.context);
}

static char* guarded(size_t size) {  // whole pages, between a megabyte before and behind that nobody may touch
    char* all = (char*)mmap(nullptr, size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == (char*)MAP_FAILED || mprotect(all + GUARD, size, PROT_READ | PROT_WRITE)) return nullptr;
    return all + GUARD;
}

/// One after the other: xorshift.
static unsigned lot(uint64_t& state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 32);
}

/// In order, backwards (order 1) or shuffled.
static void arrange(unsigned* list, unsigned size, unsigned order, uint64_t& state) {
    for (unsigned i = 0; i < size; i++) list[i] = order == 1 ? size - 1 - i : i;
    if (order > 1)
        for (unsigned i = size; i > 1; i--) std::swap(list[i - 1], list[lot(state) % i]);
}

static void barrier() {
    if (++arrived < threads) {
        current->state = AT_BARRIER;
        pause();
        return;
    }
    arrived = 0;
    verdict = votes;
    votes = 0;
    for (unsigned i = 0; i < threads; i++)
        if (fibers[i].state == AT_BARRIER) fibers[i].state = READY;
}

/// The last lane of `mask` to arrive does the work for all: `slots` has what each lane gave.
static void collective(unsigned mask, void* slot, void (*work)(unsigned, void**)) {
    const unsigned lane = current->lane;
    if (!(mask >> lane & 1)) fail("calls a warp collective with a mask that it is not in");
    Group* group = nullptr;
    for (Group& other : groups[current->warp]) {
        if (other.arrived && other.mask == mask) group = &other;
        if (other.arrived && other.mask != mask && other.mask & mask) fail("warp collectives with overlapping masks");
        if (!other.arrived && !group) group = &other;
    }
    if (!group) fail("too many warp collectives at once");
    if (group->arrived && group->work != work) fail("lanes of a warp meet in different collectives");
    group->mask = mask;
    group->work = work;
    group->slots[lane] = slot;
    group->arrived |= 1u << lane;
    if (group->arrived != mask) {
        current->state = IN_WARP;
        pause();
        return;
    }
    group->arrived = 0;
    work(mask, group->slots);
    const unsigned first = current->warp * 32;
    for (unsigned i = 0; i < 32; i++)
        if (mask >> i & 1 && i != lane) fibers[first + i].state = READY;
}

static void caught(int signal, siginfo_t* info, void*) {
    char text[96];
    if (signal == SIGSEGV || signal == SIGBUS) {
        snprintf(text, sizeof text, "address %p cannot be read or written", info->si_addr);
    } else {
        snprintf(text, sizeof text, "an array index is out of bounds, or an address not aligned for its type");
    }
    fail(text);
}

extern "C" char __start_cuda_shared[] __attribute__((weak));
extern "C" char __stop_cuda_shared[] __attribute__((weak));

/// Warps that go on now: all in step (order 0), the last one that can (1), or some by lot. 0: none can.
static unsigned chosen(unsigned order, uint64_t& state) {
    unsigned able = 0;
    for (unsigned i = 0; i < threads; i++)
        if (fibers[i].state == READY) able |= 1u << i / 32;
    if (!able || !order) return able;
    if (order == 1) return 1u << (31 - __builtin_clz(able));
    const unsigned some = able & lot(state) & lot(state);
    return some ? some : able;
}

static void run_block(unsigned order, uint64_t& state, size_t shared) {
    if (__start_cuda_shared) memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
    memset(dynamic_start, 0xff, shared);
    arrived = votes = 0;
    for (auto& warp : groups)
        for (Group& group : warp) group.arrived = 0;
    for (unsigned i = 0; i < threads; i++) fibers[i].state = READY;
    static unsigned turns[THREADS];
    unsigned left = threads;
    while (const unsigned warps = chosen(order, state)) {
        arrange(turns, threads, order, state);
        for (unsigned turn = 0; turn < threads; turn++) {
            const unsigned i = turns[turn];
            if (fibers[i].state != READY || !(warps >> i / 32 & 1)) continue;
            resume(fibers[i]);
            left -= fibers[i].state == DONE;
        }
    }
    for (unsigned i = 0; left && i < threads; i++) {
        threadIdx = fibers[i].index;
        if (fibers[i].state == AT_BARRIER) fail("waits at a barrier that other threads never reach");
        if (fibers[i].state == IN_WARP) fail("waits in a warp collective that other lanes never enter");
    }
}

/// A launch; what went wrong, or "".
static void launch(const char* name, const unsigned* shape, size_t shared, unsigned order, char* text, size_t size) {
    static char* stacks = guarded(STACK * THREADS);
    static char* memory = guarded((SHARED + 4095) / 4096 * 4096);
    static char* alternative = guarded(1 << 16);
    message = text;
    message_size = size;
    message[0] = 0;
    kernel_name = name;
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    blockIdx = threadIdx = {0, 0, 0};
    threads = blockDim.x * blockDim.y * blockDim.z;
    stack_t other = {}, before = {};
    other.ss_sp = alternative;
    other.ss_size = 1 << 16;
    sigaltstack(&other, &before);
    struct sigaction action = {}, old[4];
    action.sa_sigaction = caught;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    const int signals[4] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    for (int i = 0; i < 4; i++) sigaction(signals[i], &action, &old[i]);
    if (!sigsetjmp(failure, 1)) {
        if (!stacks || !memory || !alternative) fail("no memory");
        if (!threads || threads > THREADS) fail("a block has 1 to 1024 threads");
        if (shared > SHARED) fail("more shared memory than any GPU has");
        dynamic_end = memory + (SHARED + 4095) / 4096 * 4096;
        dynamic_start = dynamic_end - (shared + 15) / 16 * 16;
        for (unsigned i = 0; i < threads; i++) {
            Fiber& fiber = fibers[i];
            fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
            fiber.warp = i / 32;
            fiber.lane = i % 32;
            if (fiber.alive) continue;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = stacks + i * STACK;
            fiber.context.uc_stack.ss_size = STACK;
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, fiber_main, 0);
        }
        uint64_t state = 0x9e3779b97f4a7c15ull ^ order;
        const unsigned count = gridDim.x * gridDim.y * gridDim.z;
        if (count > BLOCKS) fail("more blocks than are meant to run on the host");
        static unsigned blocks[BLOCKS];
        arrange(blocks, count, order, state);
        for (unsigned turn = 0; turn < count; turn++) {
            const unsigned i = blocks[turn];
            blockIdx = {i % gridDim.x, i / gridDim.x % gridDim.y, i / (gridDim.x * gridDim.y)};
            run_block(order, state, shared);
        }
    } else {
        for (Fiber& fiber : fibers) fiber.alive = false;  // they stand in the midst of things
    }
    for (int i = 0; i < 4; i++) sigaction(signals[i], &old[i], nullptr);
    sigaltstack(&before, nullptr);
}

// Arguments: as of cuLaunchKernel, an array of pointers to them

/// What a parameter is, in a word: float, int, unsigned or a structure, and its size; `p` before what is pointed to.
template <class T>
void spell(char*& at) {
    using V = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<V>) {
        *at++ = 'p';
        spell<std::remove_pointer_t<V>>(at);
    } else if constexpr (std::is_void_v<V>) {
        at += sprintf(at, "s1 ");
    } else {
        const char kind = std::is_floating_point_v<V> ? 'f' : std::is_integral_v<V> ? (std::is_signed_v<V> ? 'i' : 'u') : 's';
        at += sprintf(at, "%c%zu ", kind, sizeof(V));
    }
}

template <class... A>
struct Kernel {
    void (*entry)(A...);
    void** arguments;

    static const char* signature() {
        static char text[16 * sizeof...(A) + 1];
        char* at = text;
        (spell<A>(at), ...);
        return text;
    }
    template <size_t... I>
    void call(std::index_sequence<I...>) {
        entry(*(std::remove_cv_t<A>*)arguments[I]...);
    }
    static void enter(void* self) { ((Kernel*)self)->call(std::index_sequence_for<A...>{}); }
};
template <class... A>
Kernel<A...> kernel(void (*entry)(A...), void** arguments) {
    return {entry, arguments};
}

}  // namespace cuda_host

#define CUDA_HOST_DYNAMIC(type, name) type* const name = (type*)cuda_host::dynamic_start
#define CUDA_HOST_KERNEL(name)                                                                                     \
    extern "C" const char* cuda_host_signature_##name() {                                                          \
        return decltype(cuda_host::kernel(name, nullptr))::signature();                                            \
    }                                                                                                              \
    extern "C" void cuda_host_launch_##name(const unsigned* shape, size_t shared, void** arguments, unsigned order, \
                                            char* text, size_t size) {                                             \
        auto made = cuda_host::kernel(name, arguments);                                                            \
        cuda_host::closure = &made;                                                                                \
        cuda_host::thunk = made.enter;                                                                             \
        cuda_host::launch(#name, shape, shared, order, text, size);                                                \
    }

/// Memory that ends where a page begins that nobody may touch; `size` whole pages.
extern "C" void* cuda_host_alloc(size_t size) { return cuda_host::guarded(size); }
extern "C" void cuda_host_free(void* start, size_t size) {
    munmap((char*)start - cuda_host::GUARD, size + 2 * cuda_host::GUARD);
}
