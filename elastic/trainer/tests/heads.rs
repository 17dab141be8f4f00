//! The heads on a tiny encoder with made-up labels: they learn what there is to learn, training can be taken up, and what
//! is stored picks what was trained.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use concertina_elastic::prompt::words;
use concertina_trainer::data::Question;
use concertina_trainer::heads::decision::{Decider, DecisionTraining, Goal};
use concertina_trainer::heads::encoded::Encoded;
use concertina_trainer::heads::grid::{Grid, MEASURED_MODEL, MEASURED_PROMPT, Outcome, PROMPT_LEVELS};
use concertina_trainer::heads::labels::Labels;
use concertina_trainer::heads::prompts::{Kind, Prompt};
use concertina_trainer::heads::score::{Lesson, ScoreTraining, Scorer};
use concertina_trainer::minilm::MiniLm;
use concertina_trainer::random::Random;

const WORDS: [&str; 12] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue", "key", "hard", "easy", "question", ":"];

/// Write an encoder of four layers of random weights.
fn tiny(folder: &Path) -> MiniLm {
    let (dim, ffn) = (32, 64);
    let mut random = Random::new(2);
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize], size: f32| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| (random.unit() as f32 - 0.5) * size).collect();
        let mut tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        if name.ends_with("LayerNorm.weight") {
            tensor = (tensor + 1.0).unwrap();
        }
        tensors.insert(name, tensor);
    };
    for (name, rows) in [("word", WORDS.len()), ("position", 64), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, dim], 1.0);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for i in 0..4 {
        let layer = |name: &str| format!("encoder.layer.{i}.{name}");
        for (name, rows, cols) in [
            ("attention.self.query", dim, dim),
            ("attention.self.key", dim, dim),
            ("attention.self.value", dim, dim),
            ("attention.output.dense", dim, dim),
            ("intermediate.dense", ffn, dim),
            ("output.dense", dim, ffn),
        ] {
            add(layer(&format!("{name}.weight")), &[rows, cols], 0.4);
            add(layer(&format!("{name}.bias")), &[rows], 0.1);
        }
        norms.extend([layer("attention.output.LayerNorm"), layer("output.LayerNorm")]);
    }
    for norm in norms {
        add(format!("{norm}.weight"), &[dim], 0.2);
        add(format!("{norm}.bias"), &[dim], 0.2);
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    let config = r#"{"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 4,
        "max_position_embeddings": 64, "hidden_act": "gelu"}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
    let vocab: HashMap<&str, usize> = WORDS.iter().enumerate().map(|(i, word)| (*word, i)).collect();
    let special = |id: usize| {
        serde_json::json!({"id": id, "content": WORDS[id], "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false})
    };
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    MiniLm::open(folder).unwrap()
}

fn prompt(random: &mut Random, more: &str) -> Prompt {
    let mut words: Vec<&str> = (0..6 + random.below(6)).map(|_| WORDS[4 + random.below(3)]).collect();
    let at = random.below(words.len());
    words.insert(at, more);
    let query = format!("Question: {}", words.join(" "));
    Prompt::new(&Question { task: 0, query, choices: vec!["a".into(), "b".into()], right: 0 }, &[], Kind::Mixed)
}

#[test]
fn the_score_head_learns_which_word_matters() {
    let folder = tempfile::tempdir().unwrap();
    let minilm = tiny(folder.path());
    let mut random = Random::new(1);
    let prompts: Vec<Prompt> = (0..40).map(|_| prompt(&mut random, "key")).collect();
    let labels = |prompt: &Prompt| Labels {
        effect: prompt.words.iter().map(|w| f32::from(u8::from(&prompt.text[w.text.clone()] == "key"))).collect(),
        gradient: vec![],
        surprisal: vec![],
        whole: 1.0,
    };
    let encoded = Encoded::all(&minilm, &prompts).unwrap();
    let lessons: Vec<Lesson> = prompts
        .iter()
        .zip(&encoded)
        .take(30)
        .map(|(prompt, encoded)| Lesson::new(encoded, prompt, &labels(prompt)).unwrap().unwrap())
        .collect();
    let training = ScoreTraining { steps: 90, batch: 4, rate: 0.02, seed: 1 };
    let (kept, copy) = (folder.path().join("kept.safetensors"), folder.path().join("copy.safetensors"));
    let mut scorer = Scorer::fresh(&minilm, 1).unwrap();
    let mut losses = Vec::new();
    scorer
        .train(&lessons, training, &kept, &mut |done, _, now| {
            if done == 41 {
                std::fs::copy(&kept, &copy).unwrap();
            }
            losses.push(lessons[0].loss(now).unwrap().to_scalar::<f32>().unwrap());
            Ok(())
        })
        .unwrap();
    assert!(losses[0] > 0.5 && losses[89] < 0.3 * losses[0], "{} at first, {} at last", losses[0], losses[89]);
    let stored = Scorer::restored(&scorer.stored().unwrap(), minilm.heads).unwrap();
    for (prompt, encoded) in prompts.iter().zip(&encoded).skip(30) {
        let scores: Vec<f32> = stored.scores(encoded).unwrap().to_vec1().unwrap();
        // One of seven to twelve words, and the frame.
        assert!(prompt.shortened(&scores, 20).split(' ').any(|word| word == "key"), "{}: {scores:?}", prompt.text);
    }
    // Taken up at the checkpoint of step 40.
    let mut second = Scorer::fresh(&minilm, 1).unwrap();
    second.train(&lessons, training, &copy, &mut |_, _, _| Ok(())).unwrap();
    let scores = |of: &Scorer| -> Vec<f32> { of.scores(&encoded[39]).unwrap().to_vec1().unwrap() };
    let off = scores(&scorer).iter().zip(scores(&second)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-3, "off by {off}");
    // Of a word that BERT's tokenizer drops nothing is known, and it goes first.
    let text = "red \u{200b} key";
    let bare = Encoded::of(&minilm, text, &words(text)).unwrap();
    let ranking = stored.ranking(&bare).unwrap();
    assert!(ranking[1] == f32::NEG_INFINITY && ranking[0].is_finite() && ranking[2] > ranking[0], "{ranking:?}");
    // Nothing to learn from words that are all alike.
    let alike = Labels { effect: vec![1.0; prompts[0].words.len()], ..labels(&prompts[0]) };
    assert!(Lesson::new(&encoded[0], &prompts[0], &alike).unwrap().is_none());
}

fn grid() -> Grid {
    let mut grid = Grid { pairs: vec![], ttft: vec![], tpot: vec![] };
    for prompt in MEASURED_PROMPT.map(|i| PROMPT_LEVELS[i]) {
        for model in MEASURED_MODEL {
            grid.pairs.push((prompt, model));
            grid.ttft.push(f64::from(prompt * model) / 1e4);
            grid.tpot.push(f64::from(model) / 100.0);
        }
    }
    grid
}

#[test]
fn costs_bound_what_is_feasible() {
    let grid = grid();
    let pairs = |ttft, tpot| grid.feasible(ttft, tpot).into_iter().map(|i| grid.pairs[i]).collect::<Vec<_>>();
    assert_eq!(pairs(100, 100).len(), 15);
    assert_eq!(pairs(20, 50), [(20, 20), (20, 40), (60, 20), (100, 20)]);
    assert_eq!(grid.lightest([7, 3, 12].into_iter()), Some(3));
    assert_eq!(grid.lightest([].into_iter()), None);
}

#[test]
fn the_decision_head_learns_which_questions_are_hard() {
    let folder = tempfile::tempdir().unwrap();
    let minilm = tiny(folder.path());
    let mut random = Random::new(3);
    let grid = grid();
    let made: Vec<(bool, Encoded, Outcome)> = (0..40)
        .map(|i| {
            let hard = i % 2 == 0;
            let encoded = Encoded::new(&minilm, &prompt(&mut random, if hard { "hard" } else { "easy" })).unwrap();
            let right = grid.pairs.iter().map(|(_, model)| !hard || *model >= 60).collect();
            (hard, encoded, Outcome { right, surprise: vec![0.0; 15] })
        })
        .collect();
    let lessons: Vec<(&Encoded, &Outcome)> = made.iter().take(30).map(|(_, e, o)| (e, o)).collect();
    let training = DecisionTraining { goal: Goal::Lightest, steps: 600, batch: 8, rate: 0.02, seed: 1 };
    let mut decider = Decider::fresh(&minilm, 1).unwrap();
    decider.train(&grid, &lessons, training, &folder.path().join("kept"), &mut |_, _, _| Ok(())).unwrap();
    let stored = Decider::restored(&decider.stored().unwrap(), minilm.heads).unwrap();
    let feasible = grid.feasible(100, 100);
    let picks = |encoded: &Encoded| grid.pairs[stored.picks(encoded, (4, 5), &feasible).unwrap().unwrap()];
    let wrong = made.iter().skip(30).filter(|(hard, encoded, _)| (picks(encoded).1 >= 60) != *hard).count();
    assert!(wrong <= 1, "{wrong} of 10 questions at a level of the other kind");
    // What no feasible pair answers teaches nothing.
    let hopeless = Outcome { right: vec![false; 15], surprise: vec![0.0; 15] };
    assert!(decider.loss(&grid, &made[0].1, &hopeless, (4, 5), Goal::Right).unwrap().is_none());
}
