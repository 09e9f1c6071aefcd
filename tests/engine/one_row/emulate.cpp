// The kernel of a step, run on a CPU: see emulator.h.
#include "emulator.h"
#include "step.cu"
inline void meet_block() { meet_of(1, THREADS + 32); }
static Step given_step;
static void enter() { one_row_step(given_step); now->done = true; for (;;) pause_here(); }
extern "C" int step_bytes() { return sizeof(Step); }
extern "C" int shared_bytes() { return SHARED_LIMIT; }
extern "C" int stages() { return STAGES; }
extern "C" int run(const Step* step) {
    given_step = *step;
    blocks.clear(); fibers.clear(); blocks.resize(BLOCKS);
    for (int b = 0; b < BLOCKS; ++b) {
        // What shared memory holds at first is anything.
        blocks[b].shared.resize(SHARED_LIMIT, 0xff); blocks[b].warps.resize(WARPS + 1);
        for (int t = 0; t < THREADS + 32; ++t) {
            auto f = std::make_unique<Fiber>(); f->stack.resize(1 << 16); f->block = b; f->thread = t;
            getcontext(&f->context); f->context.uc_stack.ss_sp = f->stack.data(); f->context.uc_stack.ss_size = f->stack.size(); f->context.uc_link = &main_context;
            makecontext(&f->context, enter, 0); fibers.push_back(std::move(f));
        }
    }
    for (int still = 0;;) {
        const u64 before = progress; bool all = true;
        for (auto& f : fibers) if (!f->done) { now = f.get(); swapcontext(&main_context, &f->context); if (!f->done) all = false; else ++progress; }
        if (all) return 0;
        still = progress == before ? still + 1 : 0;
        if (still > 3) { printf("stuck\n"); return 1; }
    }
}
