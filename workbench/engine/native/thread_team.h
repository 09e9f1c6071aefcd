// A few threads that share the tasks of one phase after another, and none waits for a thread that holds no task.
//
// A phase is over when its tasks are done, not when every thread has come by: a thread that the system has put aside
// misses phases and costs nothing, where a barrier would stop all of them for a time slice. Between steps threads sleep.
#pragma once

#include <atomic>
#include <climits>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vector_math.h"

class ThreadTeam {
public:
    // `num_threads` counts the caller of `run`.
    explicit ThreadTeam(int num_threads) : shares_(new Share[num_threads]), num_threads_(num_threads) {
        for (int index = 1; index < num_threads; ++index)
            threads_.emplace_back([this, index] { live(index); });
    }

    ~ThreadTeam() {
        stopping_.store(true);
        signal_.fetch_add(1);
        wake();
        for (auto& thread : threads_) thread.join();
    }

    int num_threads() const { return num_threads_; }

    // Between the two the threads are awake and look for work without being called.
    void begin_step() {
        in_step_.store(true);
        signal_.fetch_add(1);
        if (num_threads_ > 1) wake();
    }
    void end_step() { in_step_.store(false); }

    // Calls body(task, thread) for every task in 0 .. num_tasks - 1, each once, and returns when all are done.
    template <class Body> void run(int num_tasks, const Body& body) {
        if (num_threads_ == 1 || num_tasks == 1) {
            for (int task = 0; task < num_tasks; ++task) body(task, 0);
            return;
        }
        // Closed before anything else of the phase changes: who holds an old value can claim nothing with it.
        for (int i = 0; i < num_threads_; ++i) shares_[i].next.store(kClosed);
        call_ = [](const void* it, int task, int thread) { (*static_cast<const Body*>(it))(task, thread); };
        body_ = &body;
        num_done_.store(0, std::memory_order_relaxed);
        const uint64_t phase = ++num_phases_;
        for (int i = 0; i < num_threads_; ++i) {
            const int64_t begin = int64_t(num_tasks) * i / num_threads_, end = int64_t(num_tasks) * (i + 1) / num_threads_;
            shares_[i].end.store(uint32_t(end), std::memory_order_release);
            shares_[i].next.store(phase << kTaskBits | uint64_t(begin), std::memory_order_release);
        }
        phase_.store(phase, std::memory_order_release);
        work(0, phase);
        for (int spins = 0; num_done_.load(std::memory_order_acquire) < num_tasks; ++spins) {
            if (spins < kSpins) _mm_pause();
            else sched_yield();
        }
    }

private:
    struct alignas(128) Share {
        std::atomic<uint64_t> next{kClosed};
        std::atomic<uint32_t> end{0};
    };
    static constexpr uint64_t kClosed = ~uint64_t(0);
    static constexpr int kTaskBits = 24;
    // About 100 us: longer than any phase's imbalance, far shorter than a time slice.
    static constexpr int kSpins = 2000;

    void live(int index) {
        _mm_setcsr(_mm_getcsr() | kFlushTiny);
        uint64_t seen = 0;
        for (;;) {
            const uint32_t signal = signal_.load();
            if (stopping_.load()) return;
            for (int spins = 0; in_step_.load(std::memory_order_relaxed); ++spins) {
                const uint64_t phase = phase_.load(std::memory_order_acquire);
                if (phase != seen) {
                    seen = phase;
                    work(index, phase);
                    spins = 0;
                } else if (spins < kSpins) _mm_pause();
                else sched_yield();
            }
            // Sleeps unless a step has begun since `signal` was read.
            syscall(SYS_futex, &signal_, FUTEX_WAIT_PRIVATE, signal, nullptr, nullptr, 0);
        }
    }

    void wake() { syscall(SYS_futex, &signal_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }

    // Takes tasks of its own share, then of the others'.
    void work(int index, uint64_t phase) {
        for (int i = 0; i < num_threads_; ++i) {
            Share& share = shares_[index + i < num_threads_ ? index + i : index + i - num_threads_];
            for (;;) {
                uint64_t next = share.next.load(std::memory_order_acquire);
                if (next >> kTaskBits != phase) return;
                const uint32_t task = uint32_t(next & ((uint64_t(1) << kTaskBits) - 1));
                if (task >= share.end.load(std::memory_order_acquire)) break;
                if (!share.next.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel)) continue;
                // A claimed task keeps its phase open, so call_ and body_ are this phase's.
                call_(body_, int(task), index);
                num_done_.fetch_add(1, std::memory_order_release);
            }
        }
    }

    std::unique_ptr<Share[]> shares_;
    alignas(128) std::atomic<uint64_t> phase_{0};
    alignas(128) std::atomic<int> num_done_{0};
    alignas(128) std::atomic<uint32_t> signal_{0};
    std::atomic<bool> in_step_{false};
    std::atomic<bool> stopping_{false};
    void (*call_)(const void*, int, int) = nullptr;
    const void* body_ = nullptr;
    uint64_t num_phases_ = 0;
    int num_threads_;
    std::vector<std::thread> threads_;
};
