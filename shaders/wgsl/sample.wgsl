// Picks a token from each row of logits, so that only the token is read back.
//
// Repetition penalty (Keskar et al., arXiv 1909.05858) over the last 64 tokens, then top-k, top-p (Holtzman et al.,
// arXiv 1904.09751) and min-p (Nguyen et al., arXiv 2407.01082) at temperature 1, then temperature: llama.cpp's order.
// Filters become a threshold on the logit, found by bisection over its bits. The draw is the Gumbel-max trick with noise
// hashed from (seed, position, token): one pass, and the same answer for the same seed on every adapter.
#import shared/logits

struct Sampler {
    temperature: f32,   // 0: the most likely token
    top_p: f32,         // 1: off
    min_p: f32,         // 0: off
    penalty: f32,       // 1: off
    top_k: u32,         // 0: off
    seed: u32,
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(2) var<storage, read> outs: array<vec4<u32>>;            // (out_rows): batch row, sampler, _, row to feed
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;            // (rows): position, chunk table
@group(0) @binding(4) var<storage, read> samplers: array<Sampler>;
@group(0) @binding(5) var<storage, read_write> recent: array<u32>;          // (samplers, params.recent): a ring by position
@group(0) @binding(6) var<storage, read_write> logits: array<f32>;          // (out_rows, vocab)
@group(0) @binding(7) var<storage, read_write> tokens: array<u32>;          // (rows): the next step's tokens
@group(0) @binding(8) var<storage, read_write> sampled: array<u32>;         // (out_rows)

const EMPTY = 0xffffffffu;
var<workgroup> best_token: array<u32, 256>;

// An order-preserving map from f32 to u32.
fn key(v: f32) -> u32 {
    let b = bitcast<u32>(v);
    return select(b | 0x80000000u, ~b, (b & 0x80000000u) != 0u);
}

fn hash(v: u32) -> u32 {
    // PCG's output permutation (O'Neill 2014; Jarzynski and Olano 2020).
    let s = v * 747796405u + 2891336453u;
    let x = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
    return (x >> 22u) ^ x;
}

fn gumbel(seed: u32, position: u32, token: u32) -> f32 {
    let h = hash(hash(hash(seed) ^ position) ^ token);
    // -log(-log(1 - v)), v uniform inside (0, 1). The draw is decided where v is small, and there WGSL's log keeps no
    // digits: near 1 it may be 2^-21 off, and 0 would make the noise infinite. So small v go through the series.
    let v = (f32(h >> 9u) + 0.5) / 8388608.0;
    let e = select(-log(1.0 - v), v + v * v * (0.5 + v * (0.33333334 + v * 0.25)), v < 0.03125);
    return -log(e);
}

// The largest key whose tail {keys >= it} has at least `goal` of the mass: tokens count 1 or their probability.
fn tail(lane: u32, at: u32, floor: u32, top: f32, goal: f32, by_count: bool) -> u32 {
    var cut = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        let candidate = cut | bit;
        var mass = 0.0;
        for (var i = lane; i < params.vocab; i += LANES) {
            let v = logits[at + i];
            let k = key(v);
            if (k >= candidate && k >= floor) { mass += select(exp(v - top), 1.0, by_count); }
        }
        if (reduce_sum(lane, mass) >= goal) { cut = candidate; }
    }
    return cut;
}

@compute @workgroup_size(256)
fn sample(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let at = group.x * params.vocab;
    let place = outs[group.x];
    let position = rows[place.x].x;
    let s = samplers[place.y];
    let ring = place.y * params.recent;
    if (s.penalty != 1.0 && lane < params.recent) {
        let token = recent[ring + lane];
        var first = token != EMPTY && token < params.vocab;
        for (var i = 0u; i < lane; i++) { first = first && recent[ring + i] != token; }
        if (first) {
            let v = logits[at + token];
            logits[at + token] = select(v * s.penalty, v / s.penalty, v > 0.0);
        }
    }
    storageBarrier();
    workgroupBarrier();

    var floor = 0u;
    // The greatest needs no filter.
    if (s.temperature > 0.0) {
        var m = -3.4e38;
        for (var i = lane; i < params.vocab; i += LANES) { m = max(m, logits[at + i]); }
        let top = reduce_max(lane, m);
        if (s.top_k > 0u && s.top_k < params.vocab) { floor = tail(lane, at, 0u, top, f32(s.top_k), true); }
        if (s.top_p < 1.0) {
            var mass = 0.0;
            for (var i = lane; i < params.vocab; i += LANES) {
                let v = logits[at + i];
                if (key(v) >= floor) { mass += exp(v - top); }
            }
            let total = reduce_sum(lane, mass);
            floor = max(floor, tail(lane, at, floor, top, s.top_p * total, false));
        }
        if (s.min_p > 0.0) { floor = max(floor, key(top + log(s.min_p))); }
        // Rounding must never leave the set empty.
        floor = min(floor, key(top));
    }

    var best = -3.4e38;
    var token = EMPTY;
    for (var i = lane; i < params.vocab; i += LANES) {
        var v = logits[at + i];
        if (s.temperature > 0.0) {
            if (key(v) < floor) { continue; }
            v = v / s.temperature + gumbel(s.seed, position, i);
        }
        if (v > best || token == EMPTY) {
            best = v;
            token = i;
        }
    }
    workgroupBarrier();
    partial[lane] = best;
    best_token[lane] = token;
    workgroupBarrier();
    if (lane == 0u) {
        for (var i = 1u; i < LANES; i++) {
            let t = best_token[i];
            if (t != EMPTY && (token == EMPTY || partial[i] > best || (partial[i] == best && t < token))) {
                best = partial[i];
                token = t;
            }
        }
        sampled[group.x] = token;
        recent[ring + (position + 1u) % params.recent] = token;
        if (place.w != EMPTY) { tokens[place.w] = token; }
    }
}
