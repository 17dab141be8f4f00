//! Twins of the kernels around attention.

use std::cell::Cell;

use super::Words;
use super::pages::{Plane, hadamard};
use crate::{AttnParams, QuantParams, RopeParams, Step, TokenParams};

const CHUNK: usize = 16;

/// The greatest head that attention takes.
const MOST_DIM: usize = 256;

/// A chunk table's entry.
fn entry(tables: Words<'_>, table: u32, chunk: usize) -> u32 {
    tables.u(table as usize + chunk)
}

/// Embeds queries and keys, transforms all if wanted, and writes keys and values into the pages. See `wgsl/rope_kv.wgsl`.
#[allow(clippy::too_many_arguments)] // a kernel's bindings
pub fn rope_kv(
    step: &Step,
    p: &RopeParams,
    rows: Words<'_>,
    tables: Words<'_>,
    rope: Words<'_>,
    q: Words<'_>,
    k: Words<'_>,
    v: Words<'_>,
    q_out: Words<'_>,
    pages: Words<'_>,
) {
    let dim = p.head_dim as usize;
    // (first, second) element of pair i.
    let pair = |i: usize| if p.halves == 1 { (i, i + dim / 2) } else { (2 * i, 2 * i + 1) };
    for row in 0..step.rows as usize {
        let turn = |e: &mut [f32]| {
            for i in 0..dim / 2 {
                let at = 2 * (p.rope_offset as usize + row * dim / 2 + i);
                let ((a, b), (cos, sin)) = (pair(i), (rope.f(at), rope.f(at + 1)));
                (e[a], e[b]) = (e[a] * cos - e[b] * sin, e[b] * cos + e[a] * sin);
            }
        };
        let head_at = |words: Words<'_>, at: u32| (0..dim).map(|i| words.f(at as usize + i)).collect::<Vec<f32>>();
        let r = row as u32;
        for head in 0..p.heads {
            let (group, inside) = (head / p.heads_per_group, head % p.heads_per_group);
            let mut e = head_at(q, p.q_offset + r * p.q_stride + group * p.q_step + inside * p.head_dim);
            turn(&mut e);
            hadamard(&mut e, p.rotate as usize);
            let to = row * p.out_stride as usize + head as usize * dim;
            e.iter().enumerate().for_each(|(i, v)| q_out.set_f(to + i, *v));
        }
        let (pos, table) = (rows.u(row * 4) as usize, rows.u(row * 4 + 1));
        let entry = entry(tables, table, pos / CHUNK);
        for group in 0..p.kept {
            let mut key = head_at(k, p.k_offset + r * p.k_stride + group * p.k_step);
            turn(&mut key);
            let value = head_at(v, p.v_offset + r * p.v_stride + group * p.v_step);
            for (is_value, mut e) in [(false, key), (true, value)] {
                hadamard(&mut e, p.rotate as usize);
                let plane = Plane::of(entry, is_value, group as usize, p.groups, p.head_dim);
                e.iter().enumerate().for_each(|(i, v)| plane.set(pages, pos % CHUNK, i, *v));
            }
        }
    }
}

/// Element `i` of the centre of a group's keys, for chunks of that width; see `KvGeometry` of the crate kv.
fn centre(pages: Words<'_>, centres: u32, bits: usize, (chunk, group): (usize, usize), p: (u32, u32), i: usize) -> f32 {
    let (groups, dim) = (p.0 as usize, p.1 as usize);
    if centres == 0 || bits >= 16 { 0.0 } else { pages.h(centres as usize * 8 + (chunk * groups + group) * dim + i) }
}

/// Chunks from one width to a narrower one, or back to 16 bits. `jobs`: (step.jobs) of two entries, from and to, the
/// chunk's number, and its tokens; behind them all is 0.
pub fn kv_quant(step: &Step, p: &QuantParams, jobs: Words<'_>, pages: Words<'_>) {
    let dim = p.head_dim as usize;
    for job in 0..step.jobs as usize {
        for (value, group) in [false, true].into_iter().flat_map(|v| (0..p.kept as usize).map(move |g| (v, g))) {
            let from = Plane::of(jobs.u(4 * job), value, group, p.groups, p.head_dim);
            let to = Plane::of(jobs.u(4 * job + 1), value, group, p.groups, p.head_dim);
            for t in 0..CHUNK {
                let chunk = jobs.u(4 * job + 2) as usize;
                // Between quantised widths the centre stays off.
                let narrow = from.bits.min(to.bits);
                let turn = f32::from(u8::from(to.bits == 16)) - f32::from(u8::from(from.bits == 16));
                let off = |i| match !value && turn != 0.0 {
                    true => turn * centre(pages, p.centres, narrow, (chunk, group), (p.groups, p.head_dim), i),
                    false => 0.0,
                };
                let known = t < jobs.u(4 * job + 3) as usize;
                let e: Vec<f32> = (0..dim).map(|i| if known { from.get(pages, t, i) + off(i) } else { 0.0 }).collect();
                if to.bits == 16 {
                    e.iter().enumerate().for_each(|(i, v)| to.set(pages, t, i, *v));
                    continue;
                }
                let (least, most) = e.iter().fold((1e30f32, -1e30f32), |(a, b), v| (a.min(*v), b.max(*v)));
                let steps = ((1 << to.bits) - 1) as f32;
                pages.set_h(2 * to.meta(t), (most - least) / steps);
                pages.set_h(2 * to.meta(t) + 1, least);
                let (scale, offset) = to.scale(pages, t);
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                for (i, v) in e.iter().enumerate() {
                    let n = ((v - offset) * inverse).round_ties_even().clamp(0.0, steps);
                    to.set_integer(pages, t, i, n as u32);
                }
            }
        }
    }
}

/// First key in the window of a query at `pos`.
fn first_seen(pos: usize, window: u32) -> usize {
    if window == 0 { 0 } else { (pos + 1).saturating_sub(window as usize) }
}

/// Attention over parts of the chunks. `partial`: (rows, heads, splits, head_dim), `split_ml`: (rows, heads, splits) and
/// `chunk_ml`: (rows, heads, batch_chunks) of maximum and sum. Of a single split, the output itself: `out`: (rows, out_stride), `row_ml`: (rows, heads).
#[allow(clippy::too_many_arguments)] // a kernel's bindings
pub fn attn_split(
    step: &Step,
    p: &AttnParams,
    rows: Words<'_>,
    tables: Words<'_>,
    q: Words<'_>,
    pages: Words<'_>,
    partial: Words<'_>,
    split_ml: Words<'_>,
    chunk_ml: Words<'_>,
    out: Words<'_>,
    row_ml: Words<'_>,
) {
    let dim = p.head_dim as usize;
    let alone = step.splits == 1;
    assert!(dim <= MOST_DIM, "heads of {dim} dimensions");
    for row in 0..step.rows as usize {
        let (pos, table) = (rows.u(row * 4) as usize, rows.u(row * 4 + 1));
        let seen = first_seen(pos, p.window);
        for head in 0..p.heads as usize {
            let group = head / p.heads_per_group as usize;
            let at = row * p.q_stride as usize + head * dim;
            let query: Vec<f32> = (0..dim).map(|i| q.f(at + i)).collect();
            for split in 0..step.splits as usize {
                let begin = (split * step.chunks_per_split as usize).max(seen / CHUNK);
                let end = ((split + 1) * step.chunks_per_split as usize).min(pos / CHUNK + 1);
                let at = (row * p.heads as usize + head) * step.splits as usize + split;
                let mut empty = true;
                let (mut m, mut l) = (-1e30f32, 0f32);
                let mut acc = vec![0f32; dim];
                for chunk in begin..end {
                    let entry = entry(tables, table, chunk);
                    let keys = Plane::of(entry, false, group, p.groups, p.head_dim);
                    let values = Plane::of(entry, true, group, p.groups, p.head_dim);
                    empty = false;
                    let shape = (p.groups, p.head_dim);
                    let mid = |i| centre(pages, p.centres, keys.bits, (chunk, group), shape, i);
                    let tokens = (chunk * CHUNK).max(seen)..=(chunk * CHUNK + CHUNK - 1).min(pos);
                    let scores: Vec<(usize, f32)> = tokens
                        .map(|t| {
                            let dot: f32 = query
                                .iter()
                                .enumerate()
                                .map(|(i, q)| q * (keys.get(pages, t % CHUNK, i) + mid(i)))
                                .sum();
                            (t % CHUNK, dot * p.scale)
                        })
                        .collect();
                    let next = scores.iter().fold(m, |m, (_, s)| m.max(*s));
                    let shrink = (m - next).exp();
                    acc.iter_mut().for_each(|v| *v *= shrink);
                    let mut sum = 0f32;
                    for (t, s) in scores {
                        let weight = (s - next).exp();
                        sum += weight;
                        acc.iter_mut().enumerate().for_each(|(i, v)| *v += weight * values.get(pages, t, i));
                    }
                    l = l * shrink + sum;
                    m = next;
                    if step.density == 1 {
                        let at = (row * p.heads as usize + head) * step.batch_chunks as usize + chunk;
                        // One number, so that it does not depend on the order of chunks.
                        chunk_ml.set_f(at * 2, next + sum.ln());
                        chunk_ml.set_f(at * 2 + 1, 1.0);
                    }
                }
                hadamard(&mut acc, p.rotate as usize);
                if alone {
                    let to = row * p.out_stride as usize + head * dim;
                    acc.iter().enumerate().for_each(|(i, v)| out.set_f(to + i, *v / l));
                    row_ml.set_f((row * p.heads as usize + head) * 2, m);
                    row_ml.set_f((row * p.heads as usize + head) * 2 + 1, l);
                    continue;
                }
                if !empty {
                    acc.iter().enumerate().for_each(|(i, v)| partial.set_f(at * dim + i, *v));
                }
                split_ml.set_f(at * 2, m);
                split_ml.set_f(at * 2 + 1, l);
            }
        }
    }
}

/// What [`rope_kv`] and [`attn_split`] do for rows that are the only ones of their contexts. `qkv`: (rows, groups) of
/// queries, a key and a value; `out`: (rows, out_stride), `row_ml`: (rows, heads) and `chunk_ml`: (rows, heads, batch_chunks)
/// of maximum and sum.
#[allow(clippy::too_many_arguments)] // a kernel's bindings
pub fn attn_token(
    step: &Step,
    p: &TokenParams,
    rows: Words<'_>,
    tables: Words<'_>,
    rope: Words<'_>,
    qkv: Words<'_>,
    pages: Words<'_>,
    chunk_ml: Words<'_>,
    out: Words<'_>,
    row_ml: Words<'_>,
) {
    let q_stride = p.heads * p.head_dim;
    let of_rope = RopeParams {
        heads: p.heads,
        heads_per_group: p.heads_per_group,
        kept: p.heads / p.heads_per_group,
        groups: p.groups,
        head_dim: p.head_dim,
        halves: p.halves,
        rope_offset: p.rope_offset,
        rotate: p.rotate,
        q_offset: p.q_offset,
        q_stride: p.row_stride,
        q_step: p.group_stride,
        k_offset: p.k_offset,
        k_stride: p.row_stride,
        k_step: p.group_stride,
        v_offset: p.v_offset,
        v_stride: p.row_stride,
        v_step: p.group_stride,
        out_stride: q_stride,
        ..Default::default()
    };
    let turned = vec![Cell::new(0); (step.rows * q_stride) as usize];
    rope_kv(step, &of_rope, rows, tables, rope, qkv, qkv, qkv, Words(&turned), pages);
    let of_attention = AttnParams {
        heads: p.heads,
        heads_per_group: p.heads_per_group,
        groups: p.groups,
        head_dim: p.head_dim,
        q_stride,
        out_stride: p.out_stride,
        window: p.window,
        scale: p.scale,
        rotate: p.rotate,
        centres: p.centres,
        ..Default::default()
    };
    let whole = Step { splits: 1, chunks_per_split: step.batch_chunks, ..*step };
    let (turned, none) = (Words(&turned), Words(&[]));
    attn_split(&whole, &of_attention, rows, tables, turned, pages, none, none, chunk_ml, out, row_ml);
}

/// Joins the parts. `out`: (rows, out_stride), `row_ml`: (rows, heads) of maximum and sum.
pub fn attn_merge(
    step: &Step,
    p: &AttnParams,
    partial: Words<'_>,
    split_ml: Words<'_>,
    out: Words<'_>,
    row_ml: Words<'_>,
) {
    let dim = p.head_dim as usize;
    for row in 0..step.rows as usize {
        for head in 0..p.heads as usize {
            let splits = step.splits as usize;
            let at = (row * p.heads as usize + head) * splits;
            let parts: Vec<(usize, f32, f32)> = (at..at + splits)
                .map(|at| (at, split_ml.f(at * 2), split_ml.f(at * 2 + 1)))
                .filter(|(_, _, l)| *l > 0.0)
                .collect();
            let m = parts.iter().fold(-1e30f32, |m, part| m.max(part.1));
            let l: f32 = parts.iter().map(|(_, pm, pl)| pl * (pm - m).exp()).sum();
            for i in 0..dim {
                let v: f32 = parts.iter().map(|(at, pm, _)| partial.f(at * dim + i) * (pm - m).exp()).sum();
                out.set_f(row * p.out_stride as usize + head * dim + i, v / l);
            }
            let at = row * p.heads as usize + head;
            row_ml.set_f(at * 2, m);
            row_ml.set_f(at * 2 + 1, l);
        }
    }
}

/// Adds each chunk's share of the probability, over rows and heads, to `density`, which is parallel to the tables.
pub fn attn_share(
    step: &Step,
    p: &AttnParams,
    rows: Words<'_>,
    row_ml: Words<'_>,
    chunk_ml: Words<'_>,
    density: Words<'_>,
) {
    if step.density == 0 {
        return;
    }
    for row in 0..step.rows as usize {
        let (pos, table) = (rows.u(row * 4) as usize, rows.u(row * 4 + 1) as usize);
        for chunk in first_seen(pos, p.window) / CHUNK..=pos / CHUNK {
            for head in 0..p.heads as usize {
                let all = (row * p.heads as usize + head) * 2;
                let own = ((row * p.heads as usize + head) * step.batch_chunks as usize + chunk) * 2;
                let share = chunk_ml.f(own + 1) * (chunk_ml.f(own) - row_ml.f(all)).exp() / row_ml.f(all + 1);
                density.set_f(table + chunk, density.f(table + chunk) + share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A chunk that is narrowed, widened to be continued, and narrowed again holds the same codes, and scales that moved by
    /// what rounding them to f16 costs.
    #[test]
    fn codes_survive_being_widened() {
        let dim = 64;
        for (number, steps) in [(1, 255), (2, 15), (3, 3)] {
            let place = |width: u32, at: u32| width << 28 | at;
            let chunk = [place(0, 0), place(number, 32), place(0, 64), place(number, 96)];
            let cells: Vec<Cell<u32>> = vec![Cell::new(0); 128 * 2 * 16];
            let pages = Words(&cells);
            let plane = |entry, value| Plane::of(entry, value, 0, 1, dim);
            let mut state = 1_u32;
            for (value, t, i) in (0..2 * 16 * dim as usize).map(|n| (n % 2 == 1, n / 2 % 16, n / 32)) {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                plane(chunk[0], value).set(pages, t, i, (state >> 8) as f32 / 4e6 - 2.3);
            }
            let p = QuantParams { kept: 1, groups: 1, head_dim: dim, centres: 0 };
            for way in chunk.windows(2) {
                let jobs: Vec<Cell<u32>> = [way[0], way[1], 0, 16].into_iter().map(Cell::new).collect();
                kv_quant(&Step { jobs: 1, ..Step::default() }, &p, Words(&jobs), pages);
            }
            for (value, t) in (0..32).map(|n| (n % 2 == 1, n / 2)) {
                let [once, again] = [1, 3].map(|i| plane(chunk[i], value));
                let ((scale, offset), (scale_again, offset_again)) = (once.scale(pages, t), again.scale(pages, t));
                assert!(offset == offset_again && (scale / scale_again - 1.0).abs() < 2e-3, "{scale} {scale_again}");
                for i in 0..dim as usize {
                    let code =
                        |plane: &Plane, scale: f32, offset: f32| ((plane.get(pages, t, i) - offset) / scale).round();
                    let (a, b) = (code(&once, scale, offset), code(&again, scale_again, offset_again));
                    assert!(a == b && a <= steps as f32, "token {t}, element {i}: {a} and {b} of {steps}");
                }
            }
        }
    }
}
