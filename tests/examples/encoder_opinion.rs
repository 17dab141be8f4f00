//! How far the engine's encoder is from the trainer's, which is made with other libraries.
//!
//! `concertina-trainer encode` writes what a heads file says of texts as JSON; `encoder_opinion MODEL.gguf ENCODER_DIR HEADS
//! OPINIONS.json` reads the same texts and compares. Where HEADS is absent, heads as training begins with them are written
//! there, and nothing is compared.

#![allow(clippy::print_stdout)] // what it is for

use std::path::Path;

use concertina::elastic::prompt::shorten;
use concertina::native::{blake3_of, open_encoder, open_heads};
use concertina::{Engine, Options, Target};
use concertina_tests::system::{Deviation, untrained_heads};
use pollster::block_on;
use serde::Deserialize;

#[derive(Deserialize)]
struct Opinion {
    text: String,
    words: Vec<String>,
    scores: Vec<Option<f32>>,
    decisions: Vec<Levels>,
}

#[derive(Deserialize)]
struct Levels {
    ttft: u32,
    tpot: u32,
    prompt: Vec<f32>,
    model: Vec<f32>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, model, directory, heads, opinions] = &args[..] else {
        return Err("MODEL.gguf ENCODER_DIR HEADS OPINIONS.json".into());
    };
    let (directory, heads) = (Path::new(directory), Path::new(heads));
    let bottom = open_encoder(directory)?;
    if !heads.exists() {
        let hash = blake3_of(&directory.join("model.safetensors"))?;
        std::fs::write(heads, untrained_heads(&bottom, &hash, 3, 1).to_bytes()?)?;
        println!("wrote {}", heads.display());
        return Ok(());
    }
    let opinions: Vec<Opinion> = serde_json::from_slice(&std::fs::read(opinions)?)?;
    let mut engine = block_on(Engine::open(model, Options::default()))?;
    block_on(engine.load_encoder(bottom, open_heads(heads)?))?;
    for opinion in &opinions {
        compare(&mut engine, opinion)?;
    }
    Ok(())
}

fn compare(engine: &mut Engine, opinion: &Opinion) -> Result<(), Box<dyn std::error::Error>> {
    for levels in &opinion.decisions {
        let target = Target { ttft_percent: levels.ttft, tpot_percent: levels.tpot };
        let found = block_on(engine.encode(&opinion.text, target))?;
        let words: Vec<&str> = found.words.iter().map(|word| &opinion.text[word.text.clone()]).collect();
        if words != opinion.words {
            return Err("the texts are cut into other words".into());
        }
        let theirs: Vec<f32> = opinion.scores.iter().map(|score| score.unwrap_or(f32::NEG_INFINITY)).collect();
        let pairs = found.scores.iter().zip(&theirs).filter(|(_, wanted)| wanted.is_finite());
        let (scores, wanted): (Vec<f32>, Vec<f32>) = pairs.unzip();
        // Words that stay by the one and not by the other, at each prompt level.
        let differ = [20, 40, 60, 80].map(|percent| {
            let kept = |scores: &[f32]| shorten(&found.words, scores, percent, &[]);
            let theirs = kept(&theirs);
            kept(&found.scores).iter().filter(|word| !theirs.contains(word)).count()
        });
        let logits = [found.decision.prompt, found.decision.model].concat();
        println!(
            "{} words, {} pieces, {} windows, {target:?}: scores {}; levels {}; other words stay at 20, 40, 60, 80 %: {differ:?}",
            words.len(),
            found.pieces,
            found.windows,
            Deviation::default().max(&scores, &wanted),
            Deviation::default().max(&logits, &[&levels.prompt[..], &levels.model].concat())
        );
    }
    Ok(())
}
