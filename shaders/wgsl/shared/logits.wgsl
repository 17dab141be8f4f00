// What the kernels over a row of logits share: one workgroup a row, reductions over its 256 threads.
#import shared/step

struct SampleParams { vocab: u32, recent: u32, pad0: u32, pad1: u32 }
@group(0) @binding(1) var<uniform> params: SampleParams;

const LANES = 256u;
var<workgroup> partial: array<f32, 256>;
var<workgroup> partial16: array<f32, 16>;

// Sum over the workgroup, the same in every thread and on every run.
fn reduce_sum(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
    partial[lane] = v;
    workgroupBarrier();
    if (lane < 16u) {
        var s = 0.0;
        for (var i = 0u; i < 16u; i++) { s += partial[lane * 16u + i]; }
        partial16[lane] = s;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < 16u; i++) { total += partial16[i]; }
    return total;
}

fn reduce_max(lane: u32, v: f32) -> f32 {
    workgroupBarrier();
    partial[lane] = v;
    workgroupBarrier();
    if (lane < 16u) {
        var s = partial[lane * 16u];
        for (var i = 1u; i < 16u; i++) { s = max(s, partial[lane * 16u + i]); }
        partial16[lane] = s;
    }
    workgroupBarrier();
    var top = partial16[0];
    for (var i = 1u; i < 16u; i++) { top = max(top, partial16[i]); }
    return top;
}
