//! Chunks that change their width.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::twins::{Plane, Words};
use concertina_shaders::{QuantParams, Step, Variant};
use half::f16;

use super::attention::fill;
use super::shuffled;
use crate::parity::{Buffer, Case, Compare, Out, POISON};

#[derive(Debug, Clone, Copy)]
struct Shape {
    head_dim: usize,
    /// Groups kept, and that a chunk has room for.
    groups: (usize, usize),
    /// Widths of each job: from, to.
    jobs: &'static [(u32, u32)],
    /// Keys lose their centres.
    centred: bool,
}

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let all = &[(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (1, 0), (2, 0), (3, 0)][..];
    [
        Shape { head_dim: 64, groups: (1, 1), jobs: &[(0, 2)], centred: false },
        Shape { head_dim: 64, groups: (3, 3), jobs: all, centred: true },
        Shape { head_dim: 128, groups: (2, 4), jobs: all, centred: true },
        Shape { head_dim: 256, groups: (1, 1), jobs: all, centred: false },
        Shape { head_dim: 80, groups: (2, 3), jobs: all, centred: true },
        Shape { head_dim: 16, groups: (5, 5), jobs: all, centred: false },
        Shape { head_dim: 64, groups: (2, 2), jobs: &[], centred: false },
    ]
    .into_iter()
    .map(|s| case(variant, rng, s))
    .collect()
}

fn case(variant: &'static Variant, rng: &mut Rng, s: Shape) -> Case {
    let (dim, slots) = (s.head_dim, 2 * s.jobs.len() + 2);
    let units = (dim * 32).div_ceil(128) * 4 + 1;
    let order = shuffled(rng, slots);
    let arena = slots * units * 2 * s.groups.1 * 16;
    let mut pages = Out::new(arena);
    // Chunk numbers that jobs name: one more than there are jobs, so that none is its own index.
    let centre_words = (s.jobs.len() + 2) * s.groups.1 * dim / 2;
    let half = |v: f32| u32::from(f16::from_f32(4.0 * v).to_bits());
    if s.centred {
        pages.words.extend((0..centre_words).map(|_| half(rng.float()) | (half(rng.float()) << 16)));
        pages.written.resize(pages.words.len(), false);
    }
    let mut jobs = Vec::new();
    let mut planes = Vec::new();
    for (job, (from, to)) in s.jobs.iter().enumerate() {
        let place = |i: usize| order[2 * job + i] * units as u32;
        let entries = [(from << 28) | place(0), (to << 28) | place(1)];
        // Chunks that are not full, one of them with a single token.
        let tokens = [16, 16, 9, 16, 1][job % 5];
        jobs.extend([entries[0], entries[1], job as u32 + 1, tokens]);
        for value in [false, true] {
            for group in 0..s.groups.0 {
                let [from, to] = entries.map(|e| Plane::of(e, value, group, s.groups.1 as u32, dim as u32));
                for t in 0..16 {
                    fill(rng, &mut pages.words, &from, t, dim);
                    for i in 0..dim {
                        let (word, _) = to.element(t, i);
                        pages.expect(word..word + 1);
                    }
                }
                // One token whose elements are all equal.
                if group == 0 && from.bits == 16 {
                    (0..dim).for_each(|i| {
                        let (word, bit) = from.element(5, i);
                        pages.words[word] = (pages.words[word] & !(0xffff << bit)) | (0x3c00 << bit);
                    });
                }
                if to.bits < 16 {
                    pages.expect(to.meta(0)..to.meta(0) + 16);
                }
                planes.push((from, to, job + 1, tokens as usize, value, group));
            }
        }
    }
    // A job past the last one that would do harm.
    jobs.extend([order[0] * units as u32, (2 << 28) | (order[slots - 1] * units as u32), 0, 0]);
    let centres = if s.centred { arena as u32 / 4 } else { 0 };
    let params = QuantParams { kept: s.groups.0 as u32, groups: s.groups.1 as u32, head_dim: dim as u32, centres };
    let step = Step { jobs: s.jobs.len() as u32, ..Step::default() };
    let buffers = vec![Buffer::input(jobs), pages.output(Compare::Verified)];
    let work = [Work::Fixed(16 * s.groups.0 as u32), Work::Jobs];
    Case::new(variant, format!("{s:?}"), step, params, work, buffers).with_verify(move |buffers| {
        let cells: Vec<std::cell::Cell<u32>> = buffers[1].iter().map(|w| std::cell::Cell::new(*w)).collect();
        let words = Words(&cells);
        for (from, to, chunk, tokens, value, group) in &planes {
            // Off where the chunk becomes narrow, back where it is widened.
            let turn = f32::from(u8::from(from.bits == 16)) - f32::from(u8::from(to.bits == 16));
            let centre = |i: usize| match centres > 0 && !value {
                true => turn * words.h(8 * centres as usize + (chunk * s.groups.1 + group) * dim + i),
                false => 0.0,
            };
            for t in 0..16 {
                if to.bits == 16 {
                    for i in 0..dim {
                        let v = if t < *tokens { from.get(words, t, i) - centre(i) } else { 0.0 };
                        let found = to.get(words, t, i);
                        if found.is_nan() || (found - v).abs() > 1e-3 * v.abs() + 1e-6 {
                            return Err(format!(
                                "{} to 16 bits, token {t}, element {i}: {found}, wanted {v}",
                                from.bits
                            ));
                        }
                    }
                    continue;
                }
                if words.u(to.meta(t)) == POISON {
                    return Err(format!("token {t} has no scale"));
                }
                let (scale, _) = to.scale(words, t);
                let of = |i: usize| if t < *tokens { from.get(words, t, i) - centre(i) } else { 0.0 };
                let e: Vec<f32> = (0..dim).map(of).collect();
                let (least, most) = e.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
                let steps = ((1u32 << to.bits) - 1) as f32;
                let step = (most - least) / steps;
                if (scale - step).abs() > 1e-3 * step {
                    return Err(format!("token {t}: steps of {scale}, wanted {step}"));
                }
                for (i, v) in e.iter().enumerate() {
                    let off = (to.get(words, t, i) - v).abs();
                    // Half a step, and what rounding scale and offset to f16 costs.
                    let most = 0.501 * step + 2e-3 * (least.abs() + (most - least));
                    if off.is_nan() || off > most {
                        return Err(format!("{} to {} bits, token {t}, element {i}: off by {off}", from.bits, to.bits));
                    }
                }
            }
        }
        Ok(())
    })
}
