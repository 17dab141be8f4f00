//! How long the encoder takes beside the model's prefill of the same text.
//!
//! `encoder_speed MODEL.gguf ENCODER_DIR [ROUNDS]`: for texts of about 32, 128 and 512 word pieces, in turn, the best of
//! ROUNDS (5) of each. The heads are untrained: time does not depend on what is in them.

#![allow(clippy::print_stdout)] // what it is for

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use concertina::native::{blake3_of, open_encoder};
use concertina::{Engine, GenerateOptions, Options, Target};
use concertina_tests::system::untrained_heads;
use pollster::block_on;

const TEXT: &str = "The lighthouse keeper wrote in the log every evening, whether or not a ship had passed. In winter the \
                    entries were short: wind from the north, lamp lit at four, oil for nine days. In summer he described \
                    birds, the colour of the water, and once a whale that lay beside the rocks for an hour. ";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, model, directory, rest @ ..] = &args[..] else { return Err("MODEL.gguf ENCODER_DIR [ROUNDS]".into()) };
    let rounds: usize = rest.first().map_or(Ok(5), |n| n.parse())?;
    let directory = Path::new(directory);
    let bottom = open_encoder(directory)?;
    let heads = untrained_heads(&bottom, &blake3_of(&directory.join("model.safetensors"))?, 3, 1);
    let mut engine = block_on(Engine::open(model, Options { context_tokens: 1024, ..Options::default() }))?;
    let held = engine.counters().buffer_bytes;
    let begin = Instant::now();
    block_on(engine.load_encoder(open_encoder(directory)?, heads))?;
    let (loading, bytes) = (begin.elapsed().as_secs_f64(), engine.counters().buffer_bytes - held);
    println!("{}: loading the encoder took {loading:.2} s and {:.1} MB", engine.adapter(), bytes as f64 / 1e6);
    let words: Vec<&str> = TEXT.split_inclusive(' ').cycle().take(1000).collect();
    let mut texts = Vec::new();
    for wanted in [32, 128, 510] {
        let fits = |n: &usize| {
            bottom.tokenizer.encode(&words[..*n].concat(), false).is_ok_and(|pieces| pieces.len() <= wanted)
        };
        texts.push(words[..(1..words.len()).take_while(fits).last().unwrap_or(1)].concat());
    }
    let options = GenerateOptions { max_tokens: 1, ..GenerateOptions::default() };
    let mut best = vec![[f64::INFINITY; 2]; texts.len()];
    let mut sizes = vec![[0; 2]; texts.len()];
    // The first round makes pipelines and does not count.
    for round in 0..=rounds {
        for (i, text) in texts.iter().enumerate() {
            let tokens = engine.tokenizer().encode_prompt(text, false)?;
            let begin = Instant::now();
            let encoded = block_on(engine.encode(text, Target::NONE))?;
            let encoding = begin.elapsed().as_secs_f64();
            let mut context = engine.context()?;
            let begin = Instant::now();
            block_on(engine.generate(&mut context, &tokens, &options, |_| ControlFlow::Continue(())))?;
            let prefill = begin.elapsed().as_secs_f64();
            sizes[i] = [encoded.pieces, tokens.len()];
            if round > 0 {
                best[i] = [best[i][0].min(encoding), best[i][1].min(prefill)];
            }
        }
    }
    println!("| pieces | tokens | encoder ms | first token ms | encoder's share of both |");
    println!("|---|---|---|---|---|");
    for ([pieces, tokens], [encoding, prefill]) in sizes.into_iter().zip(best) {
        let share = 100.0 * encoding / (encoding + prefill);
        println!("| {pieces} | {tokens} | {:.1} | {:.1} | {share:.1} % |", 1e3 * encoding, 1e3 * prefill);
    }
    Ok(())
}
