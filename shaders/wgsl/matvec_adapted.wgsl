// matvec with the recovery adapter that stands beside W (see adapter): y = x Wᵀ + Bᵀ(A x) + c (+ y). A dispatch of its own
// costs an adapter with few cores more than the adapter's work, so every workgroup computes A x anew for its output features.
// W is a whole matrix cut by columns: x and y begin at 0, and all its rows are computed, a multiple of 4.
//
// With subgroups of eight lanes a workgroup is one of them, which goes through its output features block by block, so that A x needs
// neither a barrier nor shared memory.
#import shared/matvec
#import shared/ranks

@group(0) @binding(8) var<storage, read> ranks: array<vec4<u32>>;       // A, B and c, as adapter has them
@group(0) @binding(9) var<storage, read> sizes: array<vec4<f32>>;       // of a rank in A times that in B: two quads; c's

// What x makes of A: the lower four ranks, the upper.
struct Mix { low: vec4<f32>, high: vec4<f32> }

// A x of the quads of inputs from `first` on in steps of `every`.
fn share_of(row: u32, first: u32, every: u32) -> Mix {
    let quads = params.panels * SUBS * 8u;
    let begin = row * params.x_stride / 4u;
    var mix = Mix(vec4<f32>(0.0), vec4<f32>(0.0));
    for (var i = first; i < quads; i += every) {
        let v = x[begin + i];
        mix.low += four(ranks[2u * i], v);
        mix.high += four(ranks[2u * i + 1u], v);
    }
    return mix;
}

// Store rows n to n + 3: their sums, and what the adapter adds.
fn finish_adapted(row: u32, n: u32, sums: vec4<f32>, mix: Mix) {
    let quads = params.panels * SUBS * 8u;
    let o = min(n, params.n - 4u) / 4u;
    let b = 2u * (quads + o);
    let c = 2u * quads + params.n / 2u + o / 4u;
    let added = mixed(ranks[b], mix.low * sizes[0]) + mixed(ranks[b + 1u], mix.high * sizes[1]);
    finish(row, n, sums + added + bytes(ranks[c][o & 3u]) * sizes[2].x);
}

#ifdef SUBGROUPS
// The sum over eight lanes: broadcasts cost llvmpipe far less than subgroupAdd.
fn all_lanes(v: vec4<f32>) -> vec4<f32> {
    return ((subgroupBroadcast(v, 0u) + subgroupBroadcast(v, 1u)) + (subgroupBroadcast(v, 2u) + subgroupBroadcast(v, 3u)))
        + ((subgroupBroadcast(v, 4u) + subgroupBroadcast(v, 5u)) + (subgroupBroadcast(v, 6u) + subgroupBroadcast(v, 7u)));
}

@compute @workgroup_size(8)
fn matvec_adapted(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let mine = share_of(group.y, lane, 8u);
    let mix = Mix(all_lanes(mine.low), all_lanes(mine.high));
    var block = 0u;
    loop {
        // Nobody leaves early: lanes past the end store nothing.
        let n = (group.x * THREADS + block * 8u + lane) * 4u;
        finish_adapted(group.y, n, four_features(n, group.y, lane), mix);
        continuing {
            block++;
            break if block >= THREADS / 8u;
        }
    }
}
#else
// A x of each thread's share of the inputs.
var<workgroup> parts: array<Mix, THREADS>;

@compute @workgroup_size(THREADS)
fn matvec_adapted(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Nobody leaves early: lanes past the end store nothing.
    let n = (group.x * THREADS + local) * 4u;
    parts[local] = share_of(group.y, local, THREADS);
    workgroupBarrier();
    var mix = Mix(vec4<f32>(0.0), vec4<f32>(0.0));
    for (var i = 0u; i < THREADS; i++) {
        mix.low += parts[i].low;
        mix.high += parts[i].high;
    }
    finish_adapted(group.y, n, four_features(n, group.y), mix);
}
#endif
