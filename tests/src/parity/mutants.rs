//! Wrong kernels, planted: each is a variant with one piece of its text replaced by what a slip would have left there.

use concertina_shaders::{Variant, variant};

/// A slip in a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// The variant that it is planted in.
    pub variant: &'static str,
    /// What the slip is.
    pub what: &'static str,
    /// Text of the expanded WGSL; every occurrence is replaced.
    pub from: &'static str,
    /// What it becomes.
    pub to: &'static str,
    /// Subgroups must be larger than this for the text to matter.
    pub subgroup_over: u32,
}

impl Mutant {
    /// The wrong variant, under a name of its own.
    ///
    /// # Errors
    /// If the kernel no longer has the text: then the mutant must follow the kernel.
    pub fn plant(&self) -> Result<&'static Variant, String> {
        let right = variant(self.variant).ok_or_else(|| format!("no variant {}", self.variant))?;
        if !right.source.contains(self.from) {
            return Err(format!("{}: the kernel has no {:?} to get wrong ({})", self.variant, self.from, self.what));
        }
        let name = format!("{} with {}", self.variant, self.what);
        Ok(Box::leak(Box::new(Variant {
            name: name.leak(),
            source: right.source.replace(self.from, self.to).leak(),
            ..*right
        })))
    }
}

const fn slip(variant: &'static str, what: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { variant, what, from, to, subgroup_over: 0 }
}

/// The wrong kernels that the harness must catch.
pub const MUTANTS: &[Mutant] = &[
    // Weights: one slip for each way of decoding.
    slip(
        "embed.f16",
        "halves of a word swapped",
        "vec4<f32>(unpack2x16float(two.x), unpack2x16float(two.y))",
        "vec4<f32>(unpack2x16float(two.y), unpack2x16float(two.x))",
    ),
    slip("embed.bf16", "a mantissa that leaks", "two.x & 0xffff0000u", "two.x"),
    slip("embed.q4_0", "an even row's scale for all", "(r & 1u) == 1u", "false"),
    slip("embed.q4_1", "nibbles the other way round", "s.q[i & 3u] >> (i & 4u)", "s.q[i & 3u] >> (4u - (i & 4u))"),
    slip(
        "embed.q5_0",
        "no fifth bits in the last quarter",
        "+ fifth(s.h, i)",
        "+ select(fifth(s.h, i), vec4<f32>(0.0), i == 7u)",
    ),
    slip("embed.q5_1", "a minimum that is not added", "+ vec4<f32>(c.y)", ""),
    slip(
        "embed.q8_0",
        "unsigned bytes",
        "vec4<i32>(i << 24u, i << 16u, i << 8u, i) >> vec4<u32>(24u)",
        "vec4<u32>(v, v >> 8u, v >> 16u, v >> 24u) & vec4<u32>(255u)",
    ),
    slip("embed.q4_k", "top bits of scales lost", "(hi & 15u) | ((lo >> 2u) & 48u)", "(hi & 15u)"),
    slip("embed.q5_k", "fifth bits of another sub-block", "w[j + rb] >> bit", "w[j + rb] >> (bit ^ vec4<u32>(1u))"),
    slip("embed.q6_k", "quarters swapped", "quarter >= 2u", "quarter < 2u"),
    slip("embed.q4_1", "no scale", "quad(s, i) * params.scale", "quad(s, i)"),
    slip(
        "embed.f32",
        "a part that takes the next part's first token",
        "token >= params.first + params.count",
        "token > params.first + params.count",
    ),
    slip("embed.f32", "the batch one short", "|| row >= step.rows", "|| row + 1u >= step.rows"),
    // Matrix products: prefixes, offsets, the edges of the batch.
    slip(
        "matvec.q4_1",
        "a missing scale",
        "fn scale(s: Sub, i: u32) -> vec2<f32> { return s.dm; }",
        "fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(1.0, s.dm.y); }",
    ),
    slip(
        "matvec.q4_0",
        "panels past the prefix",
        "piece >= params.panels * SUBS",
        "piece >= params.panels_stored * SUBS",
    ),
    slip("matvec.f32", "rows of W past the prefix", "n + 1u < params.n", "n + 1u <= params.n"),
    slip("matvec.q8_0", "x from its beginning", "+ params.x_offset", ""),
    slip("matvec.f16", "a bias from its beginning", "bias[f]", "bias[f - params.first]"),
    slip("matvec.q5_1", "no accumulation", "v += y[i];", ""),
    slip("matmul.bf16", "the batch of the other rows", "params.out_rows == 1u", "params.out_rows == 2u"),
    slip("matmul.q4_0", "a store past the batch", "if (row + 3u < rows) { finish", "{ finish"),
    slip(
        "matmul.q6_k",
        "a row repeated",
        "vec4<u32>(row) + vec4<u32>(0u, 1u, 2u, 3u)",
        "vec4<u32>(row) + vec4<u32>(0u, 1u, 2u, 2u)",
    ),
    slip("matmul.q4_k", "a sub-block short", "piece >= params.panels * SUBS", "piece + 1u >= params.panels * SUBS"),
    slip("matmul.f32", "row blocks of the kept panels", "(m / rb) * params.panels_stored", "(m / rb) * params.panels"),
    slip(
        "matmul.f16.subgroups",
        "a norm without its gains",
        "return v * (gain[at] + vec4<f32>(params.gain_offset));",
        "return v;",
    ),
    slip("matmul.q4_1", "one row's norm for all", "norm_factor(qhi.y)", "norm_factor(qhi.x)"),
    slip(
        "matvec.q4_1.subgroups",
        "squares of one lane",
        "subgroupAdd(select(0.0, squares, lane < 8u))",
        "8.0 * squares",
    ),
    slip(
        "matvec.q8_0",
        "gate and up swapped",
        "activated(biased(f, sums.x)) * biased(f + 2u, sums.z)",
        "activated(biased(f + 2u, sums.z)) * biased(f, sums.x)",
    ),
    slip("matvec_wide.f32", "SiLU for GELU", "if (GLU == 2u)", "if (GLU == 3u)"),
    slip("matvec_wide.q5_1", "runs without gaps", "(f / run) * params.y_step", "(f / run) * run"),
    slip(
        "matvec.q6_k",
        "the second half with the scale of the first",
        "return vec2<f32>(select(s.s, s.t, i >= 4u), 0.0);",
        "return vec2<f32>(s.s, 0.0);",
    ),
    slip(
        "matvec.q4_0.subgroups",
        "x before its gain summed",
        "let xs = across(((v0 ",
        "let xs = across(((subgroupBroadcast(u, 0u) ",
    ),
    slip(
        "matmul.q5_0.subgroups",
        "a quad of x from another lane",
        "subgroupBroadcast(x5, 6u)",
        "subgroupBroadcast(x5, 5u)",
    ),
    slip("matmul.q8_0.subgroups", "features past the end", "if (n >= params.n) { return; }", ""),
    slip("matvec.q4_k.subgroups", "lanes past the eighth", "o += lane & 7u;", "o += lane & 3u;"),
    slip("matvec_wide.q4_1", "a lane left out of the sum", "i < LANES; i += folded", "i + 1u < LANES; i += folded"),
    slip(
        "matvec_wide.q4_1.subgroups",
        "partial sums that are left out",
        "let folded = max(subgroup / FEATURES, 1u)",
        "let folded = max(subgroup / FEATURES, 1u) * 2u",
    ),
    Mutant {
        subgroup_over: 8, // eight features fill a smaller one
        ..slip("matvec_wide.q4_1.subgroups", "a fold too few", "distance < subgroup;", "distance < subgroup / 2u;")
    },
    // Tiles, and rounded activations.
    slip("matmul_tile.q4_1", "a piece short", "piece < params.panels * SUBS", "piece + 1u < params.panels * SUBS"),
    slip(
        "matmul_tile.f32",
        "no wait before the tile is overwritten",
        "        workgroupBarrier();\n        if (stages) {\n            x_tile",
        "        if (stages) {\n            x_tile",
    ),
    slip(
        "matmul_tile.q4_k",
        "quads of x out of place",
        "x_tile[x_at + 256u] = four(v)",
        "x_tile[x_at + 256u] = four(u)",
    ),
    slip(
        "matmul_tile.q8_0",
        "banks of features spread for writing only",
        "feature_place(4u * tx + 2u)",
        "(4u * tx + 2u)",
    ),
    slip(
        "matmul_tile.q6_k",
        "squares of three quarters",
        "+ (x_tile[i + 2u].x + x_tile[i + 3u].x)",
        "+ (x_tile[i + 2u].x)",
    ),
    slip("matmul_tile.q4_1", "rows past the batch", "if (row < batch_rows())", "if (row <= batch_rows())"),
    slip("matmul_tile.q4_1.x32", "a norm of another row", "ty + 16u, a1)", "ty + 15u, a1)"),
    slip(
        "matmul_tile.q4_1.x16",
        "x of the row before the last",
        "min(row0 + x_row, rows - 1u)",
        "min(row0 + x_row, max(rows, 2u) - 2u)",
    ),
    slip("matmul_tile.q5_0.f16", "rows not made large again", "sums(b0) * sizes[ty]", "sums(b0)"),
    slip("matmul_tile.q4_1.f16", "rows not made small", "u *= inverse(size);", ""),
    slip("matmul_i8.q4_1", "a minimum times half of the sum", "(c.y + x_scale[row + 64u].y)", "(c.y)"),
    slip("matmul_i8.q6_k", "the second half with the scale of the first", "w_scale[p0 + 64u].x, ", "w_scale[p0].x, "),
    slip("matmul_i8.q5_1", "a scale of half a block", "max(peaks[l], peaks[l ^ 1u])", "peaks[l]"),
    slip("matmul_i8.q5_0", "fifth bits out of place", "(b & 4u) << 18u", "(b & 4u) << 17u"),
    slip(
        "matmul_i8.q8_0",
        "squares of half a row",
        "peaks[2u * tile_row] + peaks[2u * tile_row + 1u]",
        "peaks[2u * tile_row]",
    ),
    slip("matmul_i8.q4_1.x16", "gains of another half", "gained(u2, g + 2u)", "gained(u2, g + 1u)"),
    slip(
        "matvec_i8.q6_k",
        "a borrow from the next byte",
        "((v | 0x80808080u) - 0x20202020u) ^ 0x80808080u",
        "v - 0x20202020u",
    ),
    slip("matvec_i8.q4_0", "no sum of the second half", "sum += sum16(codes)", "sum = sum16(codes)"),
    slip("matvec_i8.q4_k", "every other part of a long row left out", "begin += 256u", "begin += 512u"),
    slip(
        "matvec_i8.q4_1",
        "squares of one thread in sixteen",
        "total += partial[16u * local + i].y",
        "total = partial[16u * local].y",
    ),
    slip("matvec_i8.q5_k", "lanes left out", "i < LANES; i++", "i + 1u < LANES; i++"),
    slip("matvec_wide.q4_1", "features past the end", "if (n + 2u < params.n)", "if (n + 2u <= params.n)"),
    // Row by row.
    slip("gather_rows", "the last feature forgotten", "gid.x >= params.dim", "gid.x + 1u >= params.dim"),
    slip("rms_norm", "a loop that runs one too far", "i < params.dim", "i <= params.dim"),
    slip("rms_norm", "no offset of the weight", "(weight[i] + params.offset)", "weight[i]"),
    slip("rms_norm", "a mean over all heads", "/ f32(params.dim)", "/ f32(params.dim * params.heads)"),
    slip("rms_norm.subgroups", "one subgroup's sum", "max(LANES / subgroup, 1u)", "1u"),
    slip("glu", "neurons past the prefix", "gid.x >= params.n", "gid.x >= params.stride"),
    slip("glu", "SiLU for GELU", "params.gelu == 1u", "false"),
    // Recovery adapters.
    slip("adapter", "the upper ranks of A lost", "2u * i + ranks", "2u * i"),
    slip("adapter", "no constant", "mixed(high, totals[1]) + constant", "mixed(high, totals[1])"),
    slip("adapter", "the third row's sums for the fourth", "mixed(low, totals[6])", "mixed(low, totals[4])"),
    slip("adapter", "scales of the lower ranks for all", "* scales[ranks]", "* scales[0]"),
    slip("adapter", "a row past the end", "row + 3u <= last", "row + 2u <= last"),
    slip("adapter", "inputs past the prefix", "i < INPUTS / 4u", "i <= INPUTS / 4u"),
    slip("matvec_adapted.q4_1.subgroups", "every second input", "i += every) {", "i += 2u * every) {"),
    slip("matvec_adapted.q8_0.subgroups", "one lane's sum alone", "all_lanes(mine.low)", "mine.low"),
    slip(
        "matvec_adapted.q5_0.subgroups",
        "the first block of a workgroup for all",
        "group.x * THREADS + block * 8u",
        "group.x * THREADS + 0u * block",
    ),
    slip("matvec_adapted.q4_0", "no sum over the threads", "i < THREADS; i++", "i < 1u; i++"),
    slip("matvec_adapted.q4_k", "B behind the stored inputs", "2u * (quads + o)", "2u * (params.x_stride / 4u + o)"),
    slip("matvec_adapted.f16", "scales of the lower ranks for all", "high * sizes[1]", "high * sizes[0]"),
    slip("matvec_adapted.q6_k.subgroups", "constants of the first sixteen", "[c][o & 3u]", "[c - o / 4u][o & 3u]"),
    slip(
        "matvec_adapted.q8_0",
        "the first row's x for all",
        "let begin = row * params.x_stride / 4u;",
        "let begin = 0u;",
    ),
    // Rotary embedding and pages.
    slip("rope_kv", "a sign swapped", "select(1.0, -1.0, low)", "select(-1.0, 1.0, low)"),
    slip("rope_kv", "a key not embedded", "if (kind == 2u) { return e; }", "if (kind >= 1u) { return e; }"),
    slip("rope_kv", "the first embedding for all layers", "params.rope_offset + row", "row"),
    slip("rope_kv", "every key in the chunk's first place", "let t = place.x % 16u;", "let t = 0u;"),
    slip(
        "rope_kv",
        "groups packed tight",
        "group, params.groups, params.head_dim",
        "group, params.kept, params.head_dim",
    ),
    slip("rope_kv", "values over keys", "plane_at(entry, kind - 1u,", "plane_at(entry, 0u,"),
    slip("rope_kv", "a group's queries without their step", "* params.q_step", "* params.head_dim"),
    slip("rope_kv", "a transform of the whole head", "let a = o % block;", "let a = min(o, 31u);"),
    slip("rope_kv", "a transform that is not normalised", "inverseSqrt(f32(params.rotate))", "1.0"),
    slip("kv_quant", "an offset that is not stored", "least));\n", "0.0));\n"),
    slip("kv_quant", "the centre of another chunk", "centre_at(CENTRES, job.z,", "centre_at(CENTRES, 0u * job.z,"),
    slip("kv_quant", "a centre taken off twice", "select(0.0, -1.0, from_width == W16)", "-1.0"),
    slip("kv_quant", "what lies behind a chunk's tokens copied", "if (t >= s.tokens)", "if (t > s.tokens)"),
    slip("kv_quant", "a centre that is not put back", "select(0.0, 1.0, to_width == W16)", "0.0"),
    slip("kv_quant", "values widened as keys", "select(16u * o + t, t * octets + o, s.value)", "(16u * o + t)"),
    slip(
        "kv_quant",
        "the first token's scale for both",
        "let t = 2u * pair + i / octets;\n            widened(s, to, t, i % octets, octets, meta_of(from_width, s.at, t,",
        "let t = 2u * pair + i / octets;\n            widened(s, to, t, i % octets, octets, meta_of(from_width, s.at, 2u * pair,",
    ),
    slip("attn_split", "centres of the first chunk", "centre_at(CENTRES, c,", "centre_at(CENTRES, 0u * c,"),
    slip(
        "attn_split.subgroups.kv16.kv4",
        "centres forgotten",
        "if (CENTRES > 0u) {",
        "if (CENTRES > 0u && width == W8) {",
    ),
    slip("kv_quant", "truncation for rounding", "clamp(round(", "clamp(trunc("),
    slip("kv_quant", "a quad of the wrong octet", "source(s, t, 2u * o + 1u,", "source(s, t, 2u * o,"),
    slip("kv_quant", "the old scale ignored", "* m.x + offset", "+ offset"),
    // Attention, in both its forms.
    slip("attn_split", "no causal mask", "at >= seen && at <= pos", "at >= seen"),
    slip("attn_split", "a window one too long", "let past = t.pos + vec4<u32>(1u);", "let past = t.pos;"),
    slip("attn_split", "heads of another group", "vec4<u32>(t.group * params.heads_per_group)", "vec4<u32>(t.group)"),
    slip("attn_split", "no rescaling of what came before", "acc[n] * shrink", "acc[n]"),
    slip("attn_split", "sums that are not rescaled", "l = l * shrink + cl", "l = l + cl"),
    slip("attn_split", "the first context's table for all", "rows[t.row.x].y", "rows[0].y"),
    slip("attn_split", "an empty part that writes", "task.real[j] && l > 0.0", "task.real[j]"),
    slip("attn_split", "offsets of values forgotten", "acc[n] += vec4<f32>(offsets);", ""),
    slip("attn_split", "offsets of keys forgotten", "+ sum * meta_k.y", ""),
    slip("attn_split", "values past the last one", "min(i, most - min(most, c * CHUNK))", "i"),
    slip("attn_split.subgroups.kv16", "no causal mask", "& (t1 <= task.pos)", ""),
    slip("attn_split.subgroups.kv16.kv4", "a turn without a chunk", "vec4<bool>(there, there &&", "vec4<bool>(true,"),
    slip(
        "attn_split.subgroups.kv16",
        "a query too few",
        "return i < most_queries();",
        "return i + 1u < most_queries();",
    ),
    slip("attn_split.subgroups.kv16.kv4", "queries left grown", "scale_queries(1.0 / GROWN);", ""),
    slip("attn_split.subgroups.kv16", "a sign lost", "vec4<u32>(0x8fffe000u)", "vec4<u32>(0x0fffe000u)"),
    slip("attn_split.subgroups.kv32", "keys for values", "plane_at(entry, 1u", "plane_at(entry, 0u"),
    slip("attn_split.subgroups.kv16.kv4", "a nibble swapped", "nibbles4(u1.z >> 16u)", "nibbles4(u1.z >> 12u)"),
    slip("attn_split.subgroups.kv16.kv8.kv4.kv2", "offsets that are not rescaled", "offsets * shrink", "offsets"),
    slip(
        "attn_split.subgroups.kv16.kv8.kv4.kv2",
        "every width taken for its own",
        "n < task.end && width_of(tables[task.table + n]) != width",
        "false",
    ),
    slip(
        "attn_split.subgroups.kv16.kv8.kv4.kv2",
        "weights of another lane",
        "subgroupBroadcast(p, 6u)",
        "subgroupBroadcast(p, 5u)",
    ),
    slip("attn_split.subgroups.kv16", "an empty part that writes", "task.real[j] && sum > 0.0", "task.real[j]"),
    slip("attn_split.subgroups.kv16", "an output that is not divided", "al[i] / sum", "al[i]"),
    slip(
        "attn_split",
        "the output of another row's stride",
        "task.row[j] * params.out_stride",
        "task.row[j] * params.q_stride",
    ),
    slip(
        "attn_split",
        "a sum that is not kept",
        "row_ml[row * params.heads + head] = vec2<f32>(m, l)",
        "row_ml[row * params.heads + head] = vec2<f32>(m, 1.0)",
    ),
    // Single tokens in one dispatch.
    slip(
        "attn_token.subgroups.kv16",
        "its own key forgotten",
        "let e = exp(s - next);",
        "let e = 0.0 * exp(s - next);",
    ),
    slip(
        "attn_token.subgroups.kv16",
        "a query too few",
        "return i < most_queries();",
        "return i + 1u < most_queries();",
    ),
    slip("attn_token.subgroups.kv16", "queries left grown", "scale_queries(1.0 / GROWN);", ""),
    slip("attn_token.subgroups.kv16", "a sum that is not rescaled", "l = l * shrink + select", "l = l + select"),
    slip("attn_token.subgroups.kv16", "its own weight eight times", "select(vec4<f32>(0.0), e, lane == 0u)", "e"),
    slip("attn_token.subgroups.kv16", "its own place read", "vec4<u32>(past - 2u)", "vec4<u32>(past - 1u)"),
    slip(
        "attn_token.subgroups.kv32",
        "all in the chunk's first place",
        "let t = place.x % CHUNK;",
        "let t = 0u * place.x;",
    ),
    slip(
        "attn_token.subgroups.kv16",
        "values over keys",
        "store_token(plane_at(entry, 1u,",
        "store_token(plane_at(entry, 0u,",
    ),
    slip("attn_token.subgroups.kv32", "a sign swapped", "select(1.0, -1.0, low)", "select(-1.0, 1.0, low)"),
    slip(
        "attn_token.subgroups.kv16",
        "pairs without a sign",
        "vec4<f32>(-1.0, 1.0, -1.0, 1.0)",
        "vec4<f32>(1.0, 1.0, 1.0, 1.0)",
    ),
    slip("attn_token.subgroups.kv16", "the first embedding for all", "params.rope_offset + row * half", "row * half"),
    slip(
        "attn_token.subgroups.kv16",
        "a share without the tokens before",
        "select(vec4<f32>(0.0), across_sum(p0 + p1), t > 0u)",
        "vec4<f32>(0.0)",
    ),
    slip(
        "attn_token.subgroups.kv16",
        "a share with the chunk before",
        "select(vec4<f32>(0.0), across_sum(p0 + p1), t > 0u)",
        "across_sum(p0 + p1)",
    ),
    slip("attn_token.subgroups.kv16", "four queries again", "vec4<u32>(4u * t.split)", "vec4<u32>(0u * t.split)"),
    slip("attn_token.subgroups.kv32", "chunks before the window", "t.begin = seen / CHUNK;", "t.begin = 0u * seen;"),
    slip("attn_token.subgroups.kv16.kv4", "offsets forgotten", "add_four(off);", ""),
    slip("attn_token.subgroups.kv16.kv4", "what a loop without chunks read", "if (!any) { put_back(); }", ""),
    slip("attn_merge", "empty parts read", "if (ml.y > 0.0)", "if (true)"),
    slip(
        "attn_merge",
        "a part left out",
        "s < splits; s++) {\n        let ml",
        "s + 1u < splits; s++) {\n        let ml",
    ),
    slip("attn_share", "chunks before the window", "{ first = (place.x", "{ first = 0u * (place.x"),
    slip("attn_share", "only the first row", "r < select(0u, step.rows, mine)", "r < select(0u, row + 1u, mine)"),
    slip("attn_share", "every row's thread adds", "(row == 0u || rows[max(row, 1u) - 1u].y != table)", "true"),
    // Logits.
    slip("row_nll", "no maximum taken off", "let top = reduce_max(lane, m);", "let top = 0.0 * reduce_max(lane, m);"),
    slip(
        "row_nll",
        "a token short",
        "i < params.vocab; i += LANES) { s +=",
        "i + 1u < params.vocab; i += LANES) { s +=",
    ),
    slip("sample", "the last of equals", "&& t < token", "&& t > token"),
    slip("sample", "a penalty for each occurrence", "first = first && recent[ring + i] != token;", ""),
    slip("sample", "negative logits divided", "select(v * s.penalty, v / s.penalty, v > 0.0)", "v / s.penalty"),
    slip("sample", "no top-k", "if (s.top_k > 0u", "if (false && s.top_k > 0u"),
    slip("sample", "no top-p", "if (s.top_p < 1.0)", "if (s.top_p < 0.0)"),
    slip("sample", "a nucleus over cut tokens", "if (key(v) >= floor) { mass", "{ mass"),
    slip("sample", "no min-p", "if (s.min_p > 0.0)", "if (s.min_p > 2.0)"),
    slip("sample", "noise that forgets the position", "hash(seed) ^ position", "hash(seed)"),
    slip("sample", "a ring that stays behind", "(position + 1u) % params.recent", "position % params.recent"),
    slip(
        "sample",
        "tokens fed where none is wanted",
        "if (place.w != EMPTY) {",
        "{ let place = min(place, vec4<u32>(3u));",
    ),
    // The encoder.
    slip(
        "layer_norm",
        "a mean that is not taken off",
        "x[first + i] = (x[first + i] - vec4<f32>(mean))",
        "x[first + i] = x[first + i]",
    ),
    slip(
        "layer_norm",
        "a sum of squares for a variance",
        "let d = x[first + i] - vec4<f32>(mean);",
        "let d = x[first + i];",
    ),
    slip("layer_norm.subgroups", "the first subgroup's sum for all", "all += partial[i]", "all += partial[0u * i]"),
    slip("layer_norm", "no bias", "* weight[i] + bias[i]", "* weight[i]"),
    slip(
        "gelu_erf",
        "the tanh approximation",
        "max(v, vec4<f32>(0.0)) - 0.5 * size * poly * exp(-0.5 * v * v)",
        "0.5 * v * (1.0 + tanh(clamp(0.7978845608 * (v + 0.044715 * v * v * v), vec4<f32>(-15.0), vec4<f32>(15.0))))",
    ),
    slip("gelu_erf", "a digit of the polynomial", "1.421413741", "1.421313741"),
    slip("gelu_erf", "the square root of two forgotten", "0.231641888", "0.3275911"),
    slip("attn_dense", "a causal mask", "four < vec4<u32>(keys)", "four < vec4<u32>(min(keys, row0 + 1u))"),
    slip("attn_dense", "keys of a filled-up four that count", "select(vec4<f32>(NONE), s0, there)", "s0"),
    slip("attn_dense", "no rescaling of what came before", "acc[i] * shrink0", "acc[i]"),
    slip("attn_dense.subgroups", "sums that are not rescaled", "l1 = l1 * shrink1", "l1 = l1"),
    slip("attn_dense.subgroups", "a quad of another lane", "subgroupBroadcast(d, 6u)", "subgroupBroadcast(d, 5u)"),
    slip(
        "attn_dense.subgroups",
        "the first half of long heads alone",
        "if (HEAD_DIM > 32u) { values",
        "if (HEAD_DIM > 64u) { values",
    ),
    slip(
        "attn_dense",
        "keys of another head",
        "* params.kv_stride + vec4<u32>(head)",
        "* params.kv_stride + vec4<u32>(0u * head)",
    ),
    slip("attn_dense", "the keys before forgotten", "BEFORE + step.rows", "step.rows"),
    slip("attn_dense", "values for keys", "first + vec4<u32>(params.k_offset)", "first + vec4<u32>(params.v_offset)"),
];
