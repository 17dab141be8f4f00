// Negative log-likelihood, in nats, of a wanted token in each row of logits: perplexity without reading logits back.
#import shared/logits

@group(0) @binding(2) var<storage, read> outs: array<vec4<u32>>;            // (out_rows): batch row, sampler, wanted token
@group(0) @binding(3) var<storage, read> logits: array<f32>;                // (out_rows, vocab)
@group(0) @binding(4) var<storage, read_write> nll: array<f32>;             // (out_rows)

@compute @workgroup_size(256)
fn row_nll(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let at = group.x * params.vocab;
    var m = -3.4e38;
    for (var i = lane; i < params.vocab; i += LANES) { m = max(m, logits[at + i]); }
    let top = reduce_max(lane, m);
    var s = 0.0;
    for (var i = lane; i < params.vocab; i += LANES) { s += exp(logits[at + i] - top); }
    let sum = reduce_sum(lane, s);
    if (lane == 0u) { nll[group.x] = top + log(sum) - logits[at + outs[group.x].z]; }
}
