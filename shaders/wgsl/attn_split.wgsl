// Attention of four queries of one KV group over a part of a context's chunks, whatever the widths of their pages: scores
// of a chunk's 16 keys, then its values. One workgroup a part. A query is a (row, head) pair; the queries of a group lie
// row by row, so that with several rows every four of them share each reading of the keys and values, and a single row's
// heads do at least.
//
// There are two forms. GPUs share through workgroup memory (attn_block). Adapters whose subgroups have eight lanes are CPUs: they
// load lane by lane and jump over nothing, so every word is loaded once, handed out by `subgroupBroadcast`, and each width has
// a loop of its own (attn_lanes).
#import shared/attention
#import shared/kv

@group(0) @binding(2) var<storage, read> rows: array<vec4<u32>>;            // (rows): position, chunk table
@group(0) @binding(3) var<storage, read> tables: array<u32>;
@group(0) @binding(4) var<storage, read> q: array<vec4<f32>>;               // (rows, q_stride)
@group(0) @binding(5) var<storage, read> pages: array<vec4<u32>>;           // the layer's arena
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;   // (rows, heads, splits, head_dim)
@group(0) @binding(7) var<storage, read_write> split_ml: array<vec2<f32>>;  // (rows, heads, splits): maximum, sum
@group(0) @binding(8) var<storage, read_write> chunk_ml: array<vec2<f32>>;  // (rows, heads, batch_chunks): likewise
// Where there is one split there is nothing to merge:
@group(0) @binding(9) var<storage, read_write> out: array<vec4<f32>>;       // (rows, out_stride)
@group(0) @binding(10) var<storage, read_write> row_ml: array<vec2<f32>>;   // (rows, heads): maximum, sum

override CENTRES: u32 = 0u;
override MOST_QUERIES: u32 = 4u;

fn most_queries() -> u32 { return MOST_QUERIES; }

fn piece(i: u32) -> vec4<u32> { return pages[i]; }

fn alone() -> bool { return step.splits == 1u; }

// Where a query's part goes.
fn part_of(task: Task, j: u32) -> u32 {
    return (task.row[j] * params.heads + task.head[j]) * step.splits + task.split;
}

fn task_of(index: u32) -> Task {
    var t: Task;
    let kept = params.heads / params.heads_per_group;
    // Groups before parts: a chunk's groups lie side by side, and neighbours find each other's pages of memory at hand.
    t.group = index % kept;
    t.split = (index / kept) % step.splits;
    let block = index / (step.splits * kept);
    let queries = step.span * params.heads_per_group;
    let blocks = (queries + 3u) / 4u;
    let first = (block % blocks) * 4u;
    let i = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
    t.real = i < vec4<u32>(queries);
    let at = min(i, vec4<u32>(queries - 1u));
    t.row = vec4<u32>((block / blocks) * step.span) + at / params.heads_per_group;
    t.head = vec4<u32>(t.group * params.heads_per_group) + at % params.heads_per_group;
    t.table = rows[t.row.x].y;
    t.pos = vec4<u32>(rows[t.row.x].x, rows[t.row.y].x, rows[t.row.z].x, rows[t.row.w].x);
    let past = t.pos + vec4<u32>(1u);
    t.seen = select(vec4<u32>(0u), past - min(past, vec4<u32>(params.window)), vec4<bool>(params.window > 0u));
    let least = min(min(t.seen.x, t.seen.y), min(t.seen.z, t.seen.w));
    let most = max(max(t.pos.x, t.pos.y), max(t.pos.z, t.pos.w));
    t.begin = max(t.split * step.chunks_per_split, least / CHUNK);
    t.end = min((t.split + 1u) * step.chunks_per_split, most / CHUNK + 1u);
    return t;
}

#ifdef SUBGROUPS
#import shared/attn_lanes
#else
#import shared/attn_block
#endif
