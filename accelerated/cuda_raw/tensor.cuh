// What C++ has no words for: memory that blocks are launched with, and single instructions, one function each. Where the tests
// emulate a device on the CPU (EMULATED) they supply their own.
#pragma once

#ifndef EMULATED

#define SHARED_MEMORY(type, name) extern __shared__ type name[]

// c += a b for 16 rows of a, 8 columns of b and 16 terms, all lanes of a warp together. With g = lane / 4, t = lane % 4:
//   a[0], a[2]: row g, terms 2t, 2t + 1 and 2t + 8, 2t + 9;  a[1], a[3]: row g + 8;  two half-precision numbers each
//   b0, b1:     column g, the same terms
//   c[0], c[1]: row g, columns 2t, 2t + 1;  c[2], c[3]: row g + 8
__device__ __forceinline__ void multiply_add(float (&c)[4], const unsigned int (&a)[4], unsigned int b0,
                                             unsigned int b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c += a b in double for 8 rows, 8 columns, 4 terms. a: row g, term t; b: term t, column g; c: row g, columns 2t, 2t + 1.
__device__ __forceinline__ void multiply_add(double (&c)[2], double a, double b) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+d"(c[0]), "+d"(c[1])
        : "d"(a), "d"(b));
}

// Four 8 x 8 blocks of half-precision numbers from shared memory; lane l names row l % 8 of block l / 8. Lane l receives
// entries 2t, 2t + 1 of row g of each block; of each block's transpose, if TRANSPOSED. volatile: after the barrier.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_blocks(unsigned int (&a)[4], const unsigned short* row) {
    const unsigned int address = (unsigned int)__cvta_generic_to_shared(row);
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                     : "r"(address)
                     : "memory");
    }
}

// 16 bytes from device memory to shared memory, in the background.
__device__ __forceinline__ void copy_16_bytes(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned int)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
}

// Closes a group of copies; wait_for_copies<N> waits until at most the N youngest groups are still under way.
__device__ __forceinline__ void close_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// A number as its nearest in half precision.
__device__ __forceinline__ unsigned short as_half(float value) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}

#endif
