//! Halves of layers are left out in the order of harm for what they free; low levels leave out layers.

use concertina_elastic::LayerUnits;
use concertina_formats::testing::TinyModel;
use concertina_formats::{MemorySource, open_gguf};
use concertina_trainer::data::{Kind, Windows};
use concertina_trainer::halves::{Half, order};
use concertina_trainer::levels::{Search, UnitWeights, Without};
use concertina_trainer::net::Net;
use concertina_trainer::teacher::lessons;

fn net() -> Net {
    Net::load(&open_gguf(Box::new(MemorySource(TinyModel::new("llama").gguf()))).unwrap()).unwrap()
}

#[test]
fn the_least_harmful_go_first() {
    let net = net();
    let (layers, weights) = (net.full(), UnitWeights::of(&net));
    assert_eq!(layers.len(), 2);
    // What each half is worth; layer 1's attention is worth more once its MLP is gone.
    let mut measured = 0;
    let mut measure = |units: &[LayerUnits]| {
        measured += 1;
        let gone = |l: usize, half| match half {
            Half::Attention => units[l].groups == 0,
            Half::Mlp => units[l].neurons == 0,
        };
        let worth = [(0, Half::Attention, 5.0), (0, Half::Mlp, 9.0), (1, Half::Attention, 1.0), (1, Half::Mlp, 0.5)];
        let sum: f64 = worth.iter().filter(|(l, half, _)| gone(*l, *half)).map(|(_, _, worth)| worth).sum();
        Ok(sum + if gone(1, Half::Attention) && gone(1, Half::Mlp) { 7.0 } else { 0.0 })
    };
    let all = weights.all(&layers);
    let halves = || [0, 1].into_iter().flat_map(|l| [(l, Half::Attention), (l, Half::Mlp)]);
    let down_to = |budget: usize| move |units: &[LayerUnits], _: usize| weights.all(units) <= budget;
    let out = order(weights, net.full(), halves(), down_to(0), &mut measure, &mut |_, _| {}).unwrap();
    let order_found: Vec<(usize, Half)> = out.iter().map(|out| (out.layer, out.half)).collect();
    assert_eq!(order_found[0], (1, Half::Mlp));
    assert_eq!(order_found[1], (0, Half::Attention), "attention of layer 1 was measured anew: {order_found:?}");
    assert_eq!(out.len(), 4);
    assert!((out[3].divergence - 22.5).abs() < 1e-9, "{out:?}");
    assert!(measured <= 1 + 4 + 3 + 2 + 1, "{measured} measurements");
    let some = order(weights, net.full(), halves(), down_to(all * 8 / 10), &mut |_| Ok(1.0), &mut |_, _| {}).unwrap();
    assert!(!some.is_empty() && some.len() < 4, "it stops where the budget is kept: {some:?}");
}

#[test]
fn layers_of_least_influence_are_left_out() {
    let net = net();
    let (weights, full) = (UnitWeights::of(&net), net.full());
    let text = Windows { tokens: 16, all: vec![(Kind::Brown, (0..16).map(|i| i * 7 % 90).collect()); 2] };
    let lessons = lessons(&net, &text, 8, &mut |_, _| {}).unwrap();
    let without = |anchors: &[usize], level: u32, steps: usize| {
        let mut search = Search::new(&net, &lessons, anchors, &[], 1);
        search.leave_out(Without { layers: 1, attention: 0 }, &[0.9, 0.1]).unwrap();
        search.level(level, None, &[], steps, &mut |_, _, _| {}).unwrap()
    };
    let sub = without(&[], 30, 4);
    assert_eq!(sub.layers[1], LayerUnits { groups: 0, neurons: 0 }, "{sub:?}");
    assert!(sub.layers[0].groups > 0 && sub.layers[0].neurons > 0 && sub.layers[0] != full[0], "{sub:?}");
    assert!(weights.all(&sub.layers) * 100 <= weights.all(&full) * 30, "{sub:?}");
    assert_eq!(without(&[], 50, 0).layers[0], full[0], "nothing more need go");
    // Attention that is left out stays out, and its weights go to others.
    let mut search = Search::new(&net, &lessons, &[], &[], 1);
    search.leave_out(Without { layers: 0, attention: 1 }, &[0.9, 0.1]).unwrap();
    let sub = search.level(50, None, &[], 8, &mut |_, _, _| {}).unwrap();
    assert_eq!(sub.layers.iter().filter(|units| units.groups == 0 && units.neurons > 0).count(), 1, "{sub:?}");
    assert!(weights.all(&sub.layers) * 100 <= weights.all(&full) * 50, "{sub:?}");
    // An anchor is not among those that may go.
    let sub = without(&[1], 30, 0);
    assert!(sub.layers[1] == full[1] && sub.layers[0].groups == 0, "{sub:?}");
    assert_eq!([20, 30, 40, 60, 70].map(|level| Without::of(level, 24).to_string()), ["12+6", "9+5", "9+4", "9", "0"]);
    assert_eq!("12+6".parse::<Without>().unwrap(), Without { layers: 12, attention: 6 });
    assert!("12+".parse::<Without>().is_err() && "x".parse::<Without>().is_err());
}
