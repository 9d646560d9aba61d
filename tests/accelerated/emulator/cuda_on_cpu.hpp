// CUDA C++ on a CPU: each thread of a block is a fiber, and fibers run one at a time, each until it has to wait for others.
//
// What is checked on the way, and ends a launch with a message: threads that wait for each other for ever (a barrier or a warp
// instruction that not all reach), lanes of a warp that meet in different instructions, writes behind the end of the shared
// memory a block was launched with, sums on the half-precision tensor cores that float32 cannot hold. Shared memory starts as
// garbage. Asynchronous copies happen when they are waited for, no sooner. The order of the fibers is the caller's: results
// that change with it betray a missing barrier.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#define EMULATED
#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static  // blocks run one after the other
#define SHARED_MEMORY(type, name) type* const name = (type*)emulation::shared_memory

using std::max;
using std::min;

struct dim3 {
    unsigned int x, y, z;
};

struct alignas(16) uint4 {
    unsigned int x, y, z, w;
};

inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) {
    return {x, y, z, w};
}

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int WARP = 32;
constexpr size_t STACK = 256 * 1024, GUARD = 256;

struct Failure {
    std::string what;
};

struct Copy {
    void* to;
    const void* from;
};

struct Fiber {
    ucontext_t context;  // where it starts
    jmp_buf place;       // where it goes on: jumping, unlike swapcontext, asks nothing of the kernel
    bool started = false;
    std::vector<char> stack = std::vector<char>(STACK);
    unsigned int thread = 0;
    bool done = false;
    const unsigned int* waits_for = nullptr;  // a generation that must move on from `seen`
    unsigned int seen = 0;
    std::deque<std::vector<Copy>> groups;  // of asynchronous copies, the last one open
};

struct Meeting {  // of the lanes of a warp in one instruction
    int arrived = 0;
    unsigned int generation = 0;
    const void* instruction = nullptr;
    alignas(16) unsigned char in[WARP][64], out[WARP][64];
};

inline unsigned char* shared_memory = nullptr;
inline std::vector<Fiber> fibers;
inline std::vector<Meeting> warps;
inline Fiber* current = nullptr;
inline jmp_buf scheduler;
inline std::function<void()> body;
inline std::string failure;
inline unsigned int barrier_generation = 0, barrier_arrived = 0, alive = 0;

inline void leave() {
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

[[gnu::noinline]] inline void resume(Fiber& fiber) {
    current = &fiber;
    threadIdx = {fiber.thread, 0, 0};
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

[[noreturn]] inline void fail(const std::string& what) {
    if (failure.empty()) failure = what;
    current->done = true;
    leave();
    std::abort();  // a failed launch is not resumed
}

inline void wait_for(const unsigned int& generation, unsigned int seen) {
    current->waits_for = &generation;
    current->seen = seen;
    leave();
}

inline void release_barrier() {
    if (alive && barrier_arrived == alive) {
        barrier_arrived = 0;
        ++barrier_generation;
    }
}

// All lanes hand in a value; the last one to come computes all results.
template <typename Out, typename In, typename F>
Out meet(const In& value, const F& compute) {
    static_assert(sizeof(In) <= 64 && sizeof(Out) <= 64);
    static const char instruction = 0;  // one for each kind of instruction: its address is its name
    Meeting& warp = warps[current->thread / WARP];
    const int lane = current->thread % WARP;
    if (warp.arrived && warp.instruction != &instruction) fail("lanes of a warp met in different instructions");
    warp.instruction = &instruction;
    std::memcpy(warp.in[lane], &value, sizeof(In));
    const unsigned int seen = warp.generation;
    if (++warp.arrived == WARP) {
        In in[WARP];
        Out out[WARP];
        for (int other = 0; other < WARP; ++other) std::memcpy(&in[other], warp.in[other], sizeof(In));
        compute(in, out);
        for (int other = 0; other < WARP; ++other) std::memcpy(warp.out[other], &out[other], sizeof(Out));
        warp.arrived = 0;
        ++warp.generation;
    } else {
        wait_for(warp.generation, seen);
    }
    Out result;
    std::memcpy(&result, warp.out[lane], sizeof(Out));
    return result;
}

inline void run_fiber() {
    body();
    current->done = true;
    --alive;
    release_barrier();
    leave();
}

inline double from_half(unsigned int half) {
    static const std::vector<double> values = [] {
        std::vector<double> all(65536);
        for (int bits = 0; bits < 65536; ++bits) {
            const int exponent = bits >> 10 & 31, fraction = bits & 1023;
            const double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                                     : exponent == 0 ? std::ldexp(fraction, -24)
                                                     : std::ldexp(1024 + fraction, exponent - 25);
            all[bits] = bits & 0x8000 ? -magnitude : magnitude;
        }
        return all;
    }();
    return values[half];
}

// Runs one block; order: 0 forwards, 1 backwards, others shuffled anew for each pass.
inline void run_block(unsigned int n_threads, unsigned int order) {
    alive = n_threads;
    barrier_arrived = 0;
    for (Meeting& warp : warps) warp.arrived = 0;
    for (unsigned int thread = 0; thread < n_threads; ++thread) {
        Fiber& fiber = fibers[thread];
        fiber.thread = thread;
        fiber.done = fiber.started = false;
        fiber.waits_for = nullptr;
        fiber.groups.assign(1, {});
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, run_fiber, 0);
    }
    unsigned int random = order;
    while (alive) {
        bool progress = false;
        for (unsigned int turn = 0; turn < n_threads && failure.empty(); ++turn) {
            unsigned int index = order == 1 ? n_threads - 1 - turn : turn;
            if (order > 1) index = (random = random * 1664525u + 1013904223u) % n_threads;
            Fiber& fiber = fibers[index];
            if (fiber.done || (fiber.waits_for && *fiber.waits_for == fiber.seen)) continue;
            fiber.waits_for = nullptr;
            progress = true;
            resume(fiber);
        }
        if (!failure.empty()) return;
        if (!progress && order <= 1) {
            failure = "threads wait for each other for ever: a barrier or a warp instruction that not all of them reach";
            return;
        }
        if (!progress) {  // chance may have picked waiting fibers only
            bool stuck = true;
            for (unsigned int thread = 0; thread < n_threads; ++thread)
                stuck &= fibers[thread].done || (fibers[thread].waits_for && *fibers[thread].waits_for == fibers[thread].seen);
            if (stuck) {
                failure = "threads wait for each other for ever: a barrier or a warp instruction that not all of them reach";
                return;
            }
        }
    }
}

template <typename... P, size_t... I>
const char* launch(void (*kernel)(P...), unsigned int n_blocks, unsigned int n_threads, size_t shared_bytes, unsigned int order,
                   void** arguments, std::index_sequence<I...>) {
    std::vector<unsigned char> memory(shared_bytes + 2 * GUARD + 16);
    unsigned char* const start = (unsigned char*)(((size_t)memory.data() + GUARD + 15) / 16 * 16);
    shared_memory = start;
    blockDim = {n_threads, 1, 1};
    gridDim = {n_blocks, 1, 1};
    fibers.resize(std::max<size_t>(fibers.size(), n_threads));
    warps.assign((n_threads + WARP - 1) / WARP, {});
    failure.clear();
    body = [&] { kernel(*(std::remove_cv_t<P>*)arguments[I]...); };
    for (unsigned int block = 0; block < n_blocks && failure.empty(); ++block) {
        blockIdx = {block, 0, 0};
        std::fill(memory.begin(), memory.end(), (unsigned char)(0xA5 + block));
        run_block(n_threads, order);
        for (unsigned char* guard = memory.data(); guard < memory.data() + memory.size(); ++guard)
            if ((guard < start || guard >= start + shared_bytes) && *guard != (unsigned char)(0xA5 + block) && failure.empty())
                failure = "a block wrote outside of its shared memory";
    }
    return failure.empty() ? nullptr : failure.c_str();
}

template <typename... P>
const char* launch(void (*kernel)(P...), unsigned int n_blocks, unsigned int n_threads, size_t shared_bytes, unsigned int order,
                   void** arguments) {
    return launch(kernel, n_blocks, n_threads, shared_bytes, order, arguments, std::index_sequence_for<P...>{});
}

// Sizes of a kernel's parameters in bytes, into `sizes`; returns how many there are.
template <typename... P>
int parameters(void (*)(P...), int* sizes) {
    const int all[] = {(int)sizeof(P)...};
    std::copy(std::begin(all), std::end(all), sizes);
    return sizeof...(P);
}

}  // namespace emulation

inline void __syncthreads() {
    const unsigned int seen = emulation::barrier_generation;
    ++emulation::barrier_arrived;
    emulation::release_barrier();
    if (emulation::barrier_generation == seen) emulation::wait_for(emulation::barrier_generation, seen);
}

template <typename T>
T __shfl_xor_sync(unsigned int mask, T value, int lanes) {
    struct In {
        T value;
        int lanes;
    };
    if (mask != 0xFFFFFFFFu) emulation::fail("only whole warps are emulated");
    return emulation::meet<T>(In{value, lanes}, [](const In* in, T* out) {
        for (int lane = 0; lane < emulation::WARP; ++lane) out[lane] = in[lane ^ in[lane].lanes].value;
    });
}

inline float __uint_as_float(unsigned int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned int __float_as_uint(float value) {
    unsigned int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
    const unsigned long long before = *address;
    *address += value;
    return before;
}

// The instructions of tensor.cuh. Fragments as PTX defines them: g = lane / 4, t = lane % 4.
inline void multiply_add(float (&c)[4], const unsigned int (&a)[4], unsigned int b0, unsigned int b1) {
    struct In {
        float c[4];
        unsigned int a[4], b[2];
    };
    struct Out {
        float c[4];
    };
    In in;
    std::copy(c, c + 4, in.c);
    std::copy(a, a + 4, in.a);
    in.b[0] = b0, in.b[1] = b1;
    const Out out = emulation::meet<Out>(in, [](const In* in, Out* out) {
        double a[16][16], b[16][8];
        for (int lane = 0; lane < emulation::WARP; ++lane) {
            const int g = lane / 4, t = lane % 4;
            for (int r = 0; r < 4; ++r)
                for (int half = 0; half < 2; ++half)
                    a[g + r % 2 * 8][2 * t + half + r / 2 * 8] = emulation::from_half(in[lane].a[r] >> 16 * half & 0xFFFF);
            for (int r = 0; r < 2; ++r)
                for (int half = 0; half < 2; ++half)
                    b[2 * t + half + 8 * r][g] = emulation::from_half(in[lane].b[r] >> 16 * half & 0xFFFF);
        }
        for (int lane = 0; lane < emulation::WARP; ++lane)
            for (int i = 0; i < 4; ++i) {
                const int row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
                double sum = in[lane].c[i];
                for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
                out[lane].c[i] = (float)sum;
                if ((double)out[lane].c[i] != sum) emulation::fail("a sum on the tensor cores was rounded");
            }
    });
    std::copy(out.c, out.c + 4, c);
}

inline void multiply_add(double (&c)[2], double a, double b) {
    struct In {
        double c[2], a, b;
    };
    struct Out {
        double c[2];
    };
    const Out out = emulation::meet<Out>(In{{c[0], c[1]}, a, b}, [](const In* in, Out* out) {
        for (int lane = 0; lane < emulation::WARP; ++lane)
            for (int i = 0; i < 2; ++i) {
                double sum = in[lane].c[i];  // a: row g, term t; b: term t, column g
                for (int k = 0; k < 4; ++k)
                    sum = std::fma(in[lane / 4 * 4 + k].a, in[(2 * (lane % 4) + i) * 4 + k].b, sum);
                out[lane].c[i] = sum;
            }
    });
    c[0] = out.c[0], c[1] = out.c[1];
}

template <bool TRANSPOSED>
void load_blocks(unsigned int (&a)[4], const unsigned short* row) {
    struct Out {
        unsigned int a[4];
    };
    if ((size_t)row % 16) emulation::fail("a row of ldmatrix does not start on 16 bytes");
    const Out out = emulation::meet<Out>(row, [](const unsigned short* const* row, Out* out) {
        for (int lane = 0; lane < emulation::WARP; ++lane) {
            const int g = lane / 4, t = lane % 4;
            for (int block = 0; block < 4; ++block) {
                const unsigned short* const* const rows = row + 8 * block;
                const unsigned int first = TRANSPOSED ? rows[2 * t][g] : rows[g][2 * t];
                const unsigned int second = TRANSPOSED ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
                out[lane].a[block] = first | second << 16;
            }
        }
    });
    std::copy(out.a, out.a + 4, a);
}

inline void copy_16_bytes(void* shared, const void* global) {
    if ((size_t)shared % 16 || (size_t)global % 16) emulation::fail("a copy does not start on 16 bytes");
    emulation::current->groups.back().push_back({shared, global});
}

inline void close_copies() {
    emulation::current->groups.emplace_back();
}

template <int N>
void wait_for_copies() {
    auto& groups = emulation::current->groups;
    while (groups.size() > N + 1) {  // the last one is open
        for (const emulation::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
        groups.pop_front();
    }
}

inline unsigned short as_half(float value) {
    const unsigned int sign = std::signbit(value) ? 0x8000 : 0;
    const double magnitude = std::fabs(value);
    if (!(magnitude < 65520.0)) return sign | (magnitude == magnitude ? 0x7C00 : 0x7E00);
    const int exponent = magnitude < 0x1p-14 ? -14 : std::ilogb(magnitude);
    // In units of the last place, rounded to even as the processor does; a carry runs over into the exponent as it should.
    const unsigned int units = (unsigned int)std::nearbyint(std::ldexp(magnitude, 10 - exponent));
    return sign | (units + ((exponent + 14) << 10));
}
