// What the attention kernels share: parameters, and where a token's keys and values lie.
//
// Split attention (FlashDecoding's scheme): a context's chunks are cut into `step.splits` parts, each part keeps the
// running maximum, the sum of exponentials and the weighted values; a merge joins them. Because every chunk's own
// maximum and sum pass by, its share of the probability costs no further pass over the keys.
#import shared/step
#import shared/attn_task

struct AttnParams {
    heads: u32,             // query heads kept: a prefix of the groups
    heads_per_group: u32,
    groups: u32,            // groups a chunk has room for
    head_dim: u32,
    q_stride: u32,          // features between two rows of q
    out_stride: u32,
    window: u32,            // keys seen by a query, itself included; 0: all
    scale: f32,
    rotate: u32,            // dimensions of a block of the transform that values went through; 0: none
    centres: u32,           // piece of the arena where the centres of keys begin; 0: none
    most_queries: u32,      // of a workgroup: 4, or a group's heads where rows are taken one by one
    pad0: u32,
}
@group(0) @binding(1) var<uniform> params: AttnParams;
