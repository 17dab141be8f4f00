//! Twins of the kernels around attention.

use super::{Pages, Words};
use crate::{AttnParams, RopeParams, Step};

const CHUNK: usize = 16;

/// Index of element 0 of (slot, K or V, group, token) in pages of (slots, K|V, groups, 16, head_dim).
fn page(slot: u32, value: usize, group: usize, token: usize, groups: u32, head_dim: u32) -> usize {
    (((slot as usize * 2 + value) * groups as usize + group) * CHUNK + token) * head_dim as usize
}

fn slot(tables: Words<'_>, table: u32, chunk: usize) -> u32 {
    tables.u(table as usize + chunk) & 0x0fff_ffff
}

/// Where a query head lies among a row's heads: a KV group's queries, its key, its value, then the next group's.
fn place(head: usize, per_group: usize) -> usize {
    head / per_group * (per_group + 2) + head % per_group
}

/// Rotates queries in place and keys on their way into the pages; copies values. See `wgsl/rope_kv.wgsl` for shapes.
#[allow(clippy::too_many_arguments)] // a kernel's bindings
pub fn rope_kv(
    step: &Step,
    p: &RopeParams,
    rows: Words<'_>,
    tables: Words<'_>,
    rope: Words<'_>,
    qkv: Words<'_>,
    pages: Pages<'_>,
) {
    let dim = p.head_dim as usize;
    let per_group = p.heads_per_group as usize;
    // (first, second) element of pair i.
    let pair = |i: usize| if p.halves == 1 { (i, i + dim / 2) } else { (2 * i, 2 * i + 1) };
    for row in 0..step.rows as usize {
        let angle = |i: usize| {
            let at = 2 * (p.rope_offset as usize + row * dim / 2 + i);
            (rope.f(at), rope.f(at + 1))
        };
        for head in 0..p.heads as usize {
            let at = row * p.stride as usize + place(head, per_group) * dim;
            for i in 0..dim / 2 {
                let ((a, b), (cos, sin)) = (pair(i), angle(i));
                let (x, y) = (qkv.f(at + a), qkv.f(at + b));
                qkv.set_f(at + a, x * cos - y * sin);
                qkv.set_f(at + b, y * cos + x * sin);
            }
        }
        let (pos, table) = (rows.u(row * 4) as usize, rows.u(row * 4 + 1));
        let slot = slot(tables, table, pos / CHUNK);
        for group in 0..p.kept as usize {
            let key = row * p.stride as usize + (group * (per_group + 2) + per_group) * dim;
            let keys = page(slot, 0, group, pos % CHUNK, p.groups, p.head_dim);
            let values = page(slot, 1, group, pos % CHUNK, p.groups, p.head_dim);
            for i in 0..dim / 2 {
                let ((a, b), (cos, sin)) = (pair(i), angle(i));
                let (x, y) = (qkv.f(key + a), qkv.f(key + b));
                pages.set(keys + a, x * cos - y * sin);
                pages.set(keys + b, y * cos + x * sin);
            }
            for i in 0..dim {
                pages.set(values + i, qkv.f(key + dim + i));
            }
        }
    }
}

/// First key that a query at `pos` sees.
fn first_seen(pos: usize, window: u32) -> usize {
    if window > 0 { (pos + 1).saturating_sub(window as usize) } else { 0 }
}

/// Scores, running maxima and weighted values of each part of the chunks. See `wgsl/attn_split.wgsl` for shapes.
#[allow(clippy::too_many_arguments)] // a kernel's bindings
pub fn attn_split(
    step: &Step,
    p: &AttnParams,
    rows: Words<'_>,
    tables: Words<'_>,
    q: Words<'_>,
    pages: Pages<'_>,
    partial: Words<'_>,
    split_ml: Words<'_>,
    chunk_ml: Words<'_>,
) {
    let dim = p.head_dim as usize;
    for row in 0..step.rows as usize {
        let (pos, table) = (rows.u(row * 4) as usize, rows.u(row * 4 + 1));
        let seen = first_seen(pos, p.window);
        for head in 0..p.heads as usize {
            let group = head / p.heads_per_group as usize;
            let at = row * p.q_stride as usize + place(head, p.heads_per_group as usize) * dim;
            let query: Vec<f32> = (0..dim).map(|i| q.f(at + i)).collect();
            for split in 0..step.splits as usize {
                let begin = (split * step.chunks_per_split as usize).max(seen / CHUNK);
                let end = ((split + 1) * step.chunks_per_split as usize).min(pos / CHUNK + 1);
                let at = (row * p.heads as usize + head) * step.splits as usize + split;
                let (mut m, mut l) = (-1e30f32, 0f32);
                let mut acc = vec![0f32; dim];
                for chunk in begin..end {
                    let slot = slot(tables, table, chunk);
                    let tokens = (chunk * CHUNK).max(seen)..=(chunk * CHUNK + CHUNK - 1).min(pos);
                    let scores: Vec<(usize, f32)> = tokens
                        .map(|t| {
                            let keys = page(slot, 0, group, t % CHUNK, p.groups, p.head_dim);
                            let dot: f32 = query.iter().enumerate().map(|(i, q)| q * pages.get(keys + i)).sum();
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
                        let values = page(slot, 1, group, t, p.groups, p.head_dim);
                        acc.iter_mut().enumerate().for_each(|(i, v)| *v += weight * pages.get(values + i));
                    }
                    l = l * shrink + sum;
                    m = next;
                    if step.density == 1 {
                        let at = (row * p.heads as usize + head) * step.batch_chunks as usize + chunk;
                        chunk_ml.set_f(at * 2, next);
                        chunk_ml.set_f(at * 2 + 1, sum);
                    }
                }
                if begin < end {
                    acc.iter().enumerate().for_each(|(i, v)| partial.set_f(at * dim + i, *v));
                }
                split_ml.set_f(at * 2, m);
                split_ml.set_f(at * 2 + 1, l);
            }
        }
    }
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
            let at = (row * p.heads as usize + head) * step.splits as usize;
            let parts: Vec<(usize, f32, f32)> = (at..at + step.splits as usize)
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
