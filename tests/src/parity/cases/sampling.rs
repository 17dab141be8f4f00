//! Sampling: every filter alone and all together, ties, and the ring of recent tokens. A draw may differ from the twin's
//! where rounding decides, so both are held to a reference in f64 that knows how much rounding may decide.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{SampleParams, Sampler, Step, Variant};

use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, POISON};

/// A product or a division.
const PENALISED: Compare = Compare::f32(1e-6);

const EMPTY: u32 = u32::MAX;

/// Scores this close may change places.
const TIE: f64 = 1e-4;

const OFF: Sampler =
    Sampler { temperature: 0.0, top_p: 1.0, min_p: 0.0, penalty: 1.0, top_k: 0, seed: 0, pad0: 0, pad1: 0 };

#[derive(Clone, Copy)]
struct Row {
    settings: Sampler,
    position: u32,
    sampler: usize,
    feed: u32,
    batch_row: usize,
}

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let warm = Sampler { temperature: 0.8, ..OFF };
    // Hot enough that tokens next to where a filter cuts are drawn often.
    let hot = Sampler { temperature: 20.0, ..OFF };
    let all = Sampler { top_k: 40, top_p: 0.9, min_p: 0.05, penalty: 1.2, temperature: 1.3, ..OFF };
    let cold = Sampler { temperature: 0.05, ..OFF };
    let lists: Vec<(&str, usize, u32, f32, Vec<Sampler>)> = vec![
        ("greedy", 1000, 64, 4.0, vec![OFF]),
        ("greedy with ties", 700, 64, 0.0, vec![OFF; 3]),
        ("greedy over fewer tokens than threads", 100, 64, 4.0, vec![OFF; 2]),
        ("greedy with penalty", 513, 64, 1.0, vec![Sampler { penalty: 1.7, ..OFF }, Sampler { penalty: 0.8, ..OFF }]),
        ("temperature", 1000, 64, 2.0, [[warm; 8], [cold; 8], [hot; 8]].concat()),
        ("top-k", 999, 64, 2.0, vec![Sampler { top_k: 1, ..hot }, Sampler { top_k: 5000, ..warm }]),
        ("top-k", 333, 64, 2.0, vec![Sampler { top_k: 40, ..hot }; 16]),
        ("top-p", 1025, 16, 3.0, vec![Sampler { top_p: 0.95, ..hot }, Sampler { top_p: 0.0, ..hot }]),
        ("top-p", 300, 16, 3.0, vec![Sampler { top_p: 0.5, ..hot }; 16]),
        ("min-p", 64, 64, 3.0, vec![Sampler { min_p: 1.0, ..warm }]),
        ("min-p", 200, 64, 3.0, vec![Sampler { min_p: 0.1, ..hot }; 16]),
        ("top-p of what top-k left", 300, 64, 1.0, vec![Sampler { top_k: 50, top_p: 0.4, ..hot }; 16]),
        ("all filters", 2000, 64, 4.0, [vec![all; 8], vec![OFF]].concat()),
        ("a large vocabulary", 49_152, 64, 2.0, vec![Sampler { top_k: 0, penalty: 1.1, ..all }]),
    ];
    let case = |(name, vocab, recent, size, settings): (_, _, _, _, Vec<Sampler>)| {
        case(variant, rng, name, vocab, recent, size, &settings)
    };
    lists.into_iter().map(case).collect()
}

fn case(
    variant: &'static Variant,
    rng: &mut Rng,
    name: &str,
    vocab: usize,
    ring: u32,
    size: f32,
    settings: &[Sampler],
) -> Case {
    let n = settings.len();
    let batch_rows = n + 3;
    let (mut outs, mut places) = (Out::new(4 * (n + 1)), Out::new(4 * batch_rows));
    let mut samplers = Out::new(8 * (n + 2));
    let (mut recent, mut logits) = (Out::new((n + 2) * ring as usize), Out::new((n + 1) * vocab));
    let (mut tokens, mut sampled) = (Out::new(batch_rows), Out::new(n + 1));
    let mut rows = Vec::new();
    for (i, settings) in settings.iter().enumerate() {
        let row = Row {
            settings: Sampler { seed: rng.bits() as u32, ..*settings },
            position: rng.below(5000) as u32,
            sampler: n - i, // neither in the order of rows nor from 0
            feed: if i % 3 == 1 { EMPTY } else { (batch_rows - 1 - i) as u32 },
            batch_row: i + 1,
        };
        outs.words[4 * i..4 * i + 4].copy_from_slice(&[row.batch_row as u32, row.sampler as u32, POISON, row.feed]);
        places.words[4 * row.batch_row] = row.position;
        samplers.words[8 * row.sampler..8 * row.sampler + 8].copy_from_slice(bytemuck::cast_slice(&[row.settings]));
        let mut values: Vec<f32> = floats(rng, vocab).iter().map(|v| v * size).collect();
        if size == 0.0 {
            // The greatest twice or more; the first of them wins.
            for _ in 0..5 {
                values[rng.below(vocab)] = 1.0;
            }
        }
        logits.put(i * vocab, &values);
        let first = row.sampler * ring as usize;
        for word in &mut recent.words[first..first + ring as usize] {
            // Some slots are empty, some tokens are there twice, some are of another vocabulary.
            *word = match rng.below(8) {
                0 => EMPTY,
                1 => rng.below(8.min(vocab)) as u32,
                2 => (vocab + rng.below(100)) as u32,
                _ => rng.below(vocab) as u32,
            };
            if row.settings.penalty != 1.0 && (*word as usize) < vocab {
                logits.expect(i * vocab + *word as usize..i * vocab + *word as usize + 1);
            }
        }
        let slot = first + ((row.position + 1) % ring) as usize;
        recent.expect(slot..slot + 1);
        if row.feed != EMPTY {
            tokens.expect(row.feed as usize..row.feed as usize + 1);
        }
        sampled.expect(i..i + 1);
        rows.push(row);
    }
    let params = SampleParams { vocab: vocab as u32, recent: ring, ..SampleParams::default() };
    let step = Step { rows: batch_rows as u32, out_rows: n as u32, ..Step::default() };
    let buffers: Vec<Buffer> = vec![
        outs.input(),
        places.input(),
        samplers.input(),
        recent.output(Compare::Verified),
        logits.output(PENALISED),
        tokens.output(Compare::Verified),
        sampled.output(Compare::Verified),
    ];
    let work = [Work::OutRows, Work::Fixed(1)];
    Case::new(variant, format!("{name}, vocab {vocab}"), step, params, work, buffers)
        .with_verify(move |after| verify(&rows, vocab, ring, after))
}

fn verify(rows: &[Row], vocab: usize, ring: u32, after: &[&[u32]]) -> Result<(), String> {
    let (recent, logits, tokens, sampled) = (after[3], after[4], after[5], after[6]);
    for (i, row) in rows.iter().enumerate() {
        let token = sampled[i];
        let values: Vec<f64> =
            logits[i * vocab..(i + 1) * vocab].iter().map(|w| f64::from(f32::from_bits(*w))).collect();
        let what = |what: String| Err(format!("row {i} ({:?} at {}): {what}", row.settings, row.position));
        if token as usize >= vocab {
            return what(format!("token {token:#x} of {vocab}"));
        }
        if let Err(why) = drawn(row, &values, token as usize) {
            return what(why);
        }
        let slot = row.sampler * ring as usize + ((row.position + 1) % ring) as usize;
        if recent[slot] != token {
            return what(format!("token {token} was drawn and {:#x} put into the ring", recent[slot]));
        }
        if row.feed != EMPTY && tokens[row.feed as usize] != token {
            return what(format!("token {token} was drawn and {:#x} fed", tokens[row.feed as usize]));
        }
    }
    Ok(())
}

/// Whether `token` may come from these logits, which the penalty has already changed.
fn drawn(row: &Row, values: &[f64], token: usize) -> Result<(), String> {
    let s = &row.settings;
    let top = values.iter().copied().fold(f64::MIN, f64::max);
    if s.temperature == 0.0 {
        let first = values.iter().position(|v| *v == top).unwrap_or(0);
        return if token == first { Ok(()) } else { Err(format!("greedy took {token}, the greatest is {first}")) };
    }
    // Tokens above `strict` are kept for certain; below `loose` they are cut for certain.
    let (strict, loose) = (floor(s, values, top, -TIE), floor(s, values, top, TIE));
    if values[token] < loose {
        return Err(format!("token {token} has logit {}, the filters cut below {loose}", values[token]));
    }
    let score = |t: usize| values[t] / f64::from(s.temperature) + gumbel(s.seed, row.position, t as u32);
    let kept = (0..values.len()).filter(|t| values[*t] >= strict);
    let (best, at) = kept.map(|t| (score(t), t)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::MIN, 0));
    if score(token) < best - TIE - 1e-6 * best.abs() {
        return Err(format!("token {token} scores {}, token {at} scores {best}", score(token)));
    }
    Ok(())
}

/// Least logit that the filters keep, with that much more of the mass.
fn floor(s: &Sampler, values: &[f64], top: f64, more: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mut floor = f64::MIN;
    if s.top_k > 0 && (s.top_k as usize) < sorted.len() {
        floor = sorted[s.top_k as usize - 1];
        sorted.retain(|v| *v >= floor);
    }
    if s.top_p < 1.0 {
        let goal = sorted.iter().map(|v| (v - top).exp()).sum::<f64>() * (f64::from(s.top_p) + more);
        let mut mass = 0.0;
        let last = sorted.iter().find(|v| {
            mass += (**v - top).exp();
            mass >= goal
        });
        floor = floor.max(last.or(sorted.last()).copied().unwrap_or(top));
    }
    if s.min_p > 0.0 {
        floor = floor.max(top + f64::from(s.min_p).ln() - more);
    }
    floor.min(top)
}

/// Noise of (seed, position, token), as `sample.wgsl` defines it.
fn gumbel(seed: u32, position: u32, token: u32) -> f64 {
    let hash = |v: u32| {
        let s = v.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let x = (s >> ((s >> 28) + 4) ^ s).wrapping_mul(277_803_737);
        x >> 22 ^ x
    };
    let h = hash(hash(hash(seed) ^ position) ^ token);
    let v = (f64::from(h >> 9) + 0.5) / 8_388_608.0;
    -(-(-v).ln_1p()).ln()
}
