// One thread four output features side by side, one row of the batch: decode on adapters with few, wide cores, which no
// barrier or shared memory helps.
#import shared/matvec

@compute @workgroup_size(THREADS)
fn matvec(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
#endif
) {
    // Nobody leaves early: lanes past the end store nothing.
    let n = (group.x * THREADS + local) * 4u;
#ifdef SUBGROUPS
    let sums = four_features(n, group.y, lane);
#else
    let sums = four_features(n, group.y);
#endif
    finish(group.y, n, sums);
}
