//! Adapters on a tiny model: fitting gives something back, training can be stopped and taken up, and what is stored acts
//! like what was trained.

use concertina_elastic::LayerUnits;
use concertina_formats::testing::TinyModel;
use concertina_formats::{MemorySource, open_gguf};
use concertina_trainer::data::{Kind, Windows};
use concertina_trainer::net::{Adapters, Asked, Batch, Net, Pass, Tree};
use concertina_trainer::ops::head::{Mix, losses};
use concertina_trainer::random::Random;
use concertina_trainer::recover::fit::fit;
use concertina_trainer::recover::package::{restored, stored};
use concertina_trainer::recover::train::{Late, Reading, Trainee, Training};
use concertina_trainer::teacher::{Lesson, lessons};

/// The other of its two layers is cut.
const ANCHORS: &[usize] = &[0];

fn net() -> Net {
    Net::load(&open_gguf(Box::new(MemorySource(TinyModel::new("llama").gguf()))).unwrap()).unwrap()
}

fn units(net: &Net) -> Vec<LayerUnits> {
    let mut units = net.full();
    units[1] = LayerUnits { groups: 1, neurons: 64 };
    units
}

fn text(seed: u64) -> Windows {
    let mut random = Random::new(seed);
    let all = (0..12).map(|_| (Kind::Brown, (0..32).map(|_| random.below(90) as u32).collect())).collect();
    Windows { tokens: 32, all }
}

/// Mean divergence from the whole model.
fn divergence(net: &Net, adapters: Option<&Adapters>, lessons: &[Lesson]) -> f32 {
    divergence_of(net, &units(net), adapters, lessons)
}

fn divergence_of(net: &Net, units: &[LayerUnits], adapters: Option<&Adapters>, lessons: &[Lesson]) -> f32 {
    let pass = Pass::new(net, units, adapters).unwrap();
    let (mut sum, mut n) = (0.0, 0);
    for lesson in lessons {
        let hidden = pass.hidden(&lesson.batch).unwrap();
        let own = losses(&hidden, &net.head, &lesson.targets, Mix { kl: 1.0, ce: 0.0 }).unwrap();
        (sum, n) = (sum + own.iter().sum::<f32>(), n + own.len());
    }
    sum / n as f32
}

fn fitted(net: &Net, rank: usize) -> Adapters {
    fit(net, &units(net), ANCHORS, &seen(), rank, &mut |_, _| {}).unwrap()
}

/// The text that adapters are fitted on.
fn seen() -> Batch {
    let text = text(1);
    Batch { ids: text.all.iter().flat_map(|(_, ids)| ids).copied().collect(), tokens: text.tokens }
}

#[test]
fn adapters_make_up_for_halves_that_are_left_out() {
    let net = net();
    let mut units = net.full();
    units[0].groups = 0;
    let unseen = lessons(&net, &text(2), 16, &mut |_, _| {}).unwrap();
    let fitted = fit(&net, &units, &[], &seen(), 8, &mut |_, _| {}).unwrap();
    assert!(fitted.layers[0].o.is_none() && fitted.layers[0].down.is_some() && fitted.layers[1].o.is_some());
    let zeros = Adapters::zeros(&net, &units, &[], 8).unwrap();
    let shapes = |adapters: &Adapters| adapters.vars().iter().map(|var| var.dims().to_vec()).collect::<Vec<_>>();
    assert_eq!(shapes(&fitted), shapes(&zeros), "checkpoints are read into adapters of zeros");
    let of = |adapters| divergence_of(&net, &units, adapters, &unseen);
    let (without, with) = (of(None), of(Some(&fitted)));
    assert!(with < without, "{with} nats with adapters, {without} without");
}

#[test]
fn fitting_gives_something_back() {
    let net = net();
    let unseen = lessons(&net, &text(2), 16, &mut |_, _| {}).unwrap();
    let (without, constants, fitted) = (divergence(&net, None, &unseen), fitted(&net, 0), fitted(&net, 8));
    let (constants, rank_8) = (divergence(&net, Some(&constants), &unseen), divergence(&net, Some(&fitted), &unseen));
    // The weights are random, so that little follows from what is kept, and nothing is constant.
    assert!(
        rank_8 < without && constants < 1.02 * without,
        "{without} without, {constants} constants, {rank_8} fitted"
    );
    // An uncut layer needs none.
    assert!(fitted.layers[0].o.is_none() && fitted.layers[1].o.is_some());
    let stored = stored(50, &fitted).unwrap();
    let back = divergence(&net, Some(&restored(&stored, 2).unwrap()), &unseen);
    assert!((back - rank_8).abs() < 0.02 * rank_8, "{back} as bytes, {rank_8} as numbers");
}

#[test]
fn training_learns_and_can_be_taken_up() {
    let net = net();
    let units = units(&net);
    let lessons = lessons(&net, &text(3), 16, &mut |_, _| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let start = fitted(&net, 2);
    let before = divergence(&net, Some(&start), &lessons);
    let path = folder.path().join("start.safetensors");
    Trainee::new(start).save(&path).unwrap();
    let again = |from: &std::path::Path| {
        let mut trainee = Trainee::new(Adapters::zeros(&net, &units, ANCHORS, 2).unwrap());
        trainee.load(from).unwrap();
        trainee
    };
    let training = Training { steps: 40, ..Training::default() };
    let reading = Reading { lessons: &lessons, questions: &[] };
    let to = folder.path().join("kept.safetensors");
    let mut whole = again(&path);
    whole.train(&net, &units, reading, training, &to, &mut |_, _, _| {}).unwrap();
    let after = divergence(&net, Some(whole.adapters()), &lessons);
    assert!(after < 0.97 * before, "{before} before, {after} after");

    // Stopped at step 10, where a checkpoint is written, and taken up.
    let kept = folder.path().join("stopped.safetensors");
    let copy = folder.path().join("copy.safetensors");
    let mut first = again(&path);
    let mut progress = |done: usize, _: usize, _: Late| {
        if done == 11 {
            std::fs::copy(&kept, &copy).unwrap();
        }
    };
    first.train(&net, &units, reading, training, &kept, &mut progress).unwrap();
    let mut second = again(&copy);
    assert_eq!(second.step(), 10);
    second.train(&net, &units, reading, training, &kept, &mut |_, _, _| {}).unwrap();
    let taken_up = divergence(&net, Some(second.adapters()), &lessons);
    assert!((taken_up - after).abs() < 1e-3 * after, "{taken_up} taken up, {after} in one go");

    std::fs::write(&copy, b"torn").unwrap();
    let mut torn = Trainee::new(Adapters::zeros(&net, &units, ANCHORS, 2).unwrap());
    assert!(torn.load(&copy).unwrap_err().to_string().contains("remove it to begin again"));
}

#[test]
fn right_choices_are_learnt_beside_text() {
    let net = net();
    let units = units(&net);
    let lessons = lessons(&net, &text(3), 16, &mut |_, _| {}).unwrap();
    let mut random = Random::new(4);
    let mut tokens = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(90) as u32).collect() };
    let mut asked = |right| {
        let trunk = tokens(6);
        let mut tree = Tree::new(trunk.clone());
        (0..3).for_each(|_| tree.add(&[&trunk[..], &tokens(2)].concat(), 2));
        Asked { tree, right }
    };
    let questions: Vec<Asked> = (0..8).map(|i| asked(i % 3)).collect();
    let nats = |adapters: &Adapters| {
        let pass = Pass::new(&net, &units, Some(adapters)).unwrap();
        pass.choice_loss(&questions).unwrap().to_scalar::<f32>().unwrap()
    };
    let start = fitted(&net, 2);
    let (before, text_before) = (nats(&start), divergence(&net, Some(&start), &lessons));
    let mut trainee = Trainee::new(start);
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept.safetensors");
    let reading = Reading { lessons: &lessons, questions: &questions };
    let (mut text, mut choices) = (0, 0);
    let mut progress = |_: usize, _: usize, late: Late| {
        (text, choices) = (text + usize::from(late.text.is_some()), choices + usize::from(late.choices.is_some()));
    };
    let training = Training { steps: 60, ..Training::default() };
    trainee.train(&net, &units, reading, training, &kept, &mut progress).unwrap();
    assert_eq!((text, choices), (60, 59), "every second step from the second on");
    let (after, text_after) = (nats(trainee.adapters()), divergence(&net, Some(trainee.adapters()), &lessons));
    assert!(after < 0.9 * before, "{before} nats at right choices before, {after} after");
    // The weights are random: there is little that both have in common.
    assert!(text_after < 1.1 * text_before, "{text_before} nats from the whole model before, {text_after} after");
}
