// matvec with the recovery adapter that stands beside W (see adapter): y = x Wᵀ + Bᵀ(A x) + c (+ y). A dispatch of its own
// costs an adapter with few cores more than the adapter's work, so every workgroup computes A x anew for its output features.
// W is a whole matrix cut by columns: x and y begin at 0, and all its rows are computed, a multiple of 4.
#import shared/matvec
#import shared/ranks

@group(0) @binding(8) var<storage, read> ranks: array<vec4<u32>>;       // A, B and c, as adapter has them
@group(0) @binding(9) var<storage, read> sizes: array<vec4<f32>>;       // of a rank in A times that in B: two quads; c's

// A x of each thread's share of the inputs, or of each subgroup's: the lower four ranks, the upper.
var<workgroup> parts: array<vec4<f32>, 64>;

#ifdef SUBGROUPS
// The sum over eight lanes: broadcasts cost llvmpipe far less than subgroupAdd.
fn all_lanes(v: vec4<f32>) -> vec4<f32> {
    return ((subgroupBroadcast(v, 0u) + subgroupBroadcast(v, 1u)) + (subgroupBroadcast(v, 2u) + subgroupBroadcast(v, 3u)))
        + ((subgroupBroadcast(v, 4u) + subgroupBroadcast(v, 5u)) + (subgroupBroadcast(v, 6u) + subgroupBroadcast(v, 7u)));
}
#endif

@compute @workgroup_size(THREADS)
fn matvec_adapted(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) subgroup: u32,
#endif
) {
    // Nobody leaves early: lanes past the end store nothing.
    let n = (group.x * THREADS + local) * 4u;
    let quads = params.panels * SUBS * 8u;
    let begin = group.y * params.x_stride / 4u;
    var low = vec4<f32>(0.0);
    var high = vec4<f32>(0.0);
    for (var i = local; i < quads; i += THREADS) {
        let v = x[begin + i];
        low += four(ranks[2u * i], v);
        high += four(ranks[2u * i + 1u], v);
    }
#ifdef SUBGROUPS
    let of_lanes = all_lanes(low);
    let of_upper = all_lanes(high);
    let summed = 8u;
#else
    let of_lanes = low;
    let of_upper = high;
    let summed = 1u;
#endif
    if (THREADS > summed) {
        parts[2u * (local / summed)] = of_lanes;
        parts[2u * (local / summed) + 1u] = of_upper;
        workgroupBarrier();
        low = vec4<f32>(0.0);
        high = vec4<f32>(0.0);
        for (var i = 0u; i < THREADS / summed; i++) {
            low += parts[2u * i];
            high += parts[2u * i + 1u];
        }
    } else {
        low = of_lanes;
        high = of_upper;
    }
#ifdef SUBGROUPS
    let sums = four_features(n, group.y, lane, subgroup);
#else
    let sums = four_features(n, group.y);
#endif
    let o = min(n, params.n - 4u) / 4u;
    let b = 2u * (quads + o);
    let c = 2u * quads + params.n / 2u + o / 4u;
    let mix = mixed(ranks[b], low * sizes[0]) + mixed(ranks[b + 1u], high * sizes[1]);
    finish(group.y, n, sums + mix + bytes(ranks[c][o & 3u]) * sizes[2].x);
}
