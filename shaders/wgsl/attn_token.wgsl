// What `rope_kv` and `attn_split` do for a token whose context has no other in the batch and is not split, in one dispatch, lane by
// lane: on software adapters a dispatch costs as much as a third of a layer's attention. The token's key and value never come
// back from the pages: they are summed from where they were embedded, after all keys before them, so nothing waits for what
// another writes. All widths of pages are read in one go and nothing is merged.
#import shared/step
#import shared/kv

struct TokenParams {
    heads: u32,             // query heads kept: a prefix of the groups
    heads_per_group: u32,
    groups: u32,            // groups a chunk has room for
    head_dim: u32,          // a multiple of 16, at most 64
    halves: u32,            // 1: pairs (i, i + d/2), else (2i, 2i + 1)
    rope_offset: u32,       // first (cos, sin) of this layer's rotary embedding
    rotate: u32,            // dimensions of a block of the transform, a power of two that divides head_dim; 0: none
    window: u32,            // keys seen by a query, itself included; 0: all
    q_offset: u32,          // query i of group g of row r: q_offset + r·row_stride + g·group_stride + i·head_dim
    k_offset: u32,          // its key, likewise
    v_offset: u32,
    row_stride: u32,
    group_stride: u32,
    out_stride: u32,        // features between two rows of the output
    scale: f32,             // multiplies q·k
    centres: u32,           // piece of the arena where the centres of keys begin; 0: none
}
@group(0) @binding(1) var<uniform> params: TokenParams;
@group(0) @binding(2) var<storage, read> rows: array<vec4<u32>>;            // (rows): position, chunk table
@group(0) @binding(3) var<storage, read> tables: array<u32>;
@group(0) @binding(4) var<storage, read> rope: array<vec4<f32>>;            // (ropes, rows, head_dim / 2): cos, sin
@group(0) @binding(5) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> pages: array<vec4<u32>>;     // the layer's arena
@group(0) @binding(7) var<storage, read_write> chunk_ml: array<vec2<f32>>;  // (rows, heads, batch_chunks): maximum, sum
@group(0) @binding(8) var<storage, read_write> out: array<vec4<f32>>;       // (rows, out_stride)
@group(0) @binding(9) var<storage, read_write> row_ml: array<vec2<f32>>;    // (rows, heads): maximum, sum

// Fixed when a pipeline is made: adapters that jump over nothing would compute both.
override CENTRES: u32 = 0u;
override HALVES: u32 = 0u;
override HEADS_PER_GROUP: u32 = 4u;

fn most_queries() -> u32 { return HEADS_PER_GROUP; }

fn piece(i: u32) -> vec4<u32> { return pages[i]; }

#import shared/attn_task
#import shared/lanes/sums
#ifdef KV32
#import shared/lanes/kv32
#endif
#ifdef KV16
#import shared/lanes/kv16
#endif
#ifdef KV8
#import shared/lanes/kv8
#endif
#ifdef KV4
#import shared/lanes/kv4
#endif
#ifdef KV2
#import shared/lanes/kv2
#endif

// Of the lane's features and their partners: what the one and the other are multiplied with.
var<private> by_cos: Octet;
var<private> by_sin: Octet;

fn task_of(index: u32) -> Task {
    var t: Task;
    let kept = params.heads / params.heads_per_group;
    t.group = index % kept;
    let blocks = (params.heads_per_group + 3u) / 4u;
    let row = index / (kept * blocks);
    t.split = (index / kept) % blocks;
    let i = vec4<u32>(4u * t.split) + vec4<u32>(0u, 1u, 2u, 3u);
    t.real = i < vec4<u32>(params.heads_per_group);
    t.row = vec4<u32>(row);
    t.head = vec4<u32>(t.group * params.heads_per_group) + min(i, vec4<u32>(params.heads_per_group - 1u));
    t.table = rows[row].y;
    let past = rows[row].x + 1u;
    let seen = select(0u, past - min(past, params.window), params.window > 0u);
    t.seen = vec4<u32>(seen);
    // In the pages: what is before the token. Before the first there is none, and no chunk either.
    t.pos = vec4<u32>(past - 2u);
    t.begin = seen / CHUNK;
    t.end = (past + CHUNK - 2u) / CHUNK;
    return t;
}

fn load_angles(o: u32, row: u32) {
    let half = params.head_dim / 2u;
    let angles = params.rope_offset + row * half;
    if (HALVES == 1u) {
        let low = 8u * o < half;
        let a = (angles + select(8u * o - half, 8u * o, low)) / 2u;
        let c0 = rope[a];
        let c1 = rope[a + 1u];
        let c2 = rope[a + 2u];
        let c3 = rope[a + 3u];
        let turn = select(1.0, -1.0, low);
        by_cos = Octet(vec4<f32>(c0.xz, c1.xz), vec4<f32>(c2.xz, c3.xz));
        by_sin = Octet(turn * vec4<f32>(c0.yw, c1.yw), turn * vec4<f32>(c2.yw, c3.yw));
    } else {
        let a = (angles + 4u * o) / 2u;
        let c0 = rope[a];
        let c1 = rope[a + 1u];
        let signs = vec4<f32>(-1.0, 1.0, -1.0, 1.0);
        by_cos = Octet(c0.xxzz, c1.xxzz);
        by_sin = Octet(signs * c0.yyww, signs * c1.yyww);
    }
}

fn features(from_feature: u32, o: u32) -> Octet {
    let i = from_feature / 4u + 2u * o;
    return Octet(qkv[i], qkv[i + 1u]);
}

// The lane's octet of a head whose features begin at `from_feature`, embedded and transformed.
fn embedded(from_feature: u32, o: u32, lane: u32) -> Octet {
    let e = features(from_feature, o);
    var partner = Octet(e.lo.yxwz, e.hi.yxwz);
    if (HALVES == 1u) {
        let apart = params.head_dim / 16u;
        partner = features(from_feature, select(o - apart, o + apart, o < apart));
    }
    return transformed(Octet(e.lo * by_cos.lo + partner.lo * by_sin.lo, e.hi * by_cos.hi + partner.hi * by_sin.hi), lane);
}

// What a page gives back of the token's key or value.
#ifdef KV32
fn rounded(e: Octet) -> Octet { return e; }

fn store_token(plane: u32, e: Octet, to: vec2<u32>) {
    pages[plane + to.x] = bitcast<vec4<u32>>(e.lo);
    pages[plane + to.y] = bitcast<vec4<u32>>(e.hi);
}

fn key_to(o: u32, t: u32) -> vec2<u32> { return vec2<u32>(32u * o + t, 32u * o + 16u + t); }

fn value_to(o: u32, t: u32) -> vec2<u32> {
    let i = 2u * (t * (params.head_dim / 8u) + o);
    return vec2<u32>(i, i + 1u);
}
#else
fn packed(e: Octet) -> vec4<u32> {
    return vec4<u32>(pack2x16float(e.lo.xy), pack2x16float(e.lo.zw), pack2x16float(e.hi.xy), pack2x16float(e.hi.zw));
}

fn rounded(e: Octet) -> Octet {
    let u = packed(e);
    return Octet(halves4(u.xy), halves4(u.zw));
}

fn store_token(plane: u32, e: Octet, to: vec2<u32>) { pages[plane + to.x] = packed(e); }

fn key_to(o: u32, t: u32) -> vec2<u32> { return vec2<u32>(16u * o + t); }

fn value_to(o: u32, t: u32) -> vec2<u32> { return vec2<u32>(t * (params.head_dim / 8u) + o); }
#endif

// The token's own key and value join what was summed of those before it.
fn sum_own(key: Octet, value: Octet, own_chunk: u32, before: vec4<f32>, lane: u32, task: Task) {
    let s = across_sum(vec4<f32>(dot(ql[0], key.lo), dot(ql[1], key.lo), dot(ql[2], key.lo), dot(ql[3], key.lo))
        + vec4<f32>(dot(qh[0], key.hi), dot(qh[1], key.hi), dot(qh[2], key.hi), dot(qh[3], key.hi)));
    let next = max(m, s);
    shrink = exp(m - next);
    let e = exp(s - next);
    m = next;
    shrink_sums();
    al[0u] += e.x * value.lo;
    ah[0u] += e.x * value.hi;
    al[1u] += e.y * value.lo;
    ah[1u] += e.y * value.hi;
    al[2u] += e.z * value.lo;
    ah[2u] += e.z * value.hi;
    al[3u] += e.w * value.lo;
    ah[3u] += e.w * value.hi;
    l = l * shrink + select(vec4<f32>(0.0), e, lane == 0u);
    if (step.density == 1u) {
        let sum = before * shrink + e;
        let j = lane & 3u;
        if (lane < 4u && task.real[j]) {
            chunk_ml[(task.row[j] * params.heads + task.head[j]) * step.batch_chunks + own_chunk] = weight_of(m[j], sum[j]);
        }
    }
}

fn store_one(i: u32, j: u32, o: u32, task: Task, sum: f32) {
    if (task.real[j] && o < params.head_dim / 8u) {
        let to = out_of(task, j) + 2u * o;
        out[to] = al[i] / sum;
        out[to + 1u] = ah[i] / sum;
    }
}

@compute @workgroup_size(8)
fn attn_token(@builtin(workgroup_id) wg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let task = task_of(wg.x);
    let place = rows[task.row.x];
    let octets = params.head_dim / 8u;
    let there = lane < octets;
    let o = min(lane, octets - 1u);
    load_angles(o, task.row.x);

    let first = task.row.x * params.row_stride + task.group * params.group_stride;
    let key = rounded(embedded(params.k_offset + first, o, lane));
    let value = rounded(transformed(features(params.v_offset + first, o), lane));
    let queries = params.q_offset + first + (task.head - vec4<u32>(task.group * params.heads_per_group)) * params.head_dim;
    // Lanes past the head hold no features.
    let scale = select(0.0, params.scale, there);
    let q0 = embedded(queries.x, o, lane);
    ql[0] = q0.lo * scale;
    qh[0] = q0.hi * scale;
    let q1 = embedded(queries.y, o, lane);
    ql[1] = q1.lo * scale;
    qh[1] = q1.hi * scale;
    let q2 = embedded(queries.z, o, lane);
    ql[2] = q2.lo * scale;
    qh[2] = q2.hi * scale;
    let q3 = embedded(queries.w, o, lane);
    ql[3] = q3.lo * scale;
    qh[3] = q3.hi * scale;

    let own_chunk = place.x / CHUNK;
    let t = place.x % CHUNK;
    // A group of more than four queries is several workgroups: the first one writes.
    if (task.split == 0u && there) {
        let entry = tables[task.table + own_chunk];
        store_token(plane_at(entry, 0u, task.group, params.groups, params.head_dim), key, key_to(o, t));
        store_token(plane_at(entry, 1u, task.group, params.groups, params.head_dim), value, value_to(o, t));
    }

    m = vec4<f32>(NONE);
    let most = task.pos.x;
#ifdef QUANTISED
    q_sum = across_sum(features_sum());
#endif
#ifdef KV8
    sum_kv8(lane, task, most);
#endif
#ifdef KV4
    sum_kv4(lane, task, most);
#endif
#ifdef KV2
    sum_kv2(lane, task, most);
#endif
#ifdef QUANTISED
    let off = across_sum(offsets);
    add_four(off);
#endif
    // The token's own chunk is as wide as it is written, and comes last.
#ifdef KV32
    sum_kv32(lane, task, most);
#else
    sum_kv16(lane, task, most);
#endif
    let before = select(vec4<f32>(0.0), across_sum(p0 + p1), t > 0u);
    sum_own(key, value, own_chunk, before, lane, task);

    let sums = across_sum(l);
    turn_four(vec4<f32>(0.0), lane);
    store_one(0u, 0u, lane, task, sums.x);
    store_one(1u, 1u, lane, task, sums.y);
    store_one(2u, 2u, lane, task, sums.z);
    store_one(3u, 3u, lane, task, sums.w);
    let j = lane & 3u;
    let ml = vec2<f32>(m[j], sums[j]);
    let mine = lane < 4u && task.real[j];
    if (mine) { row_ml[task.row[j] * params.heads + task.head[j]] = ml; }
    // The same again, if ever: what is touched must seem to matter.
    if (touched == 0x9e3779b9u && mine) { row_ml[task.row[j] * params.heads + task.head[j]] = ml; }
}
