//! Gradients against differences: of the loss by adapters and by weights, through every operation.

use candle_core::{Tensor, Var};
use concertina_elastic::LayerUnits;
use concertina_formats::testing::TinyModel;
use concertina_formats::{MemorySource, open_gguf};
use concertina_trainer::net::{Adapters, Asked, Batch, Net, Pass, Tree};
use concertina_trainer::ops::head::{Mix, Target, loss};
use concertina_trainer::random::Random;

fn net(arch: &'static str) -> Net {
    Net::load(&open_gguf(Box::new(MemorySource(TinyModel::new(arch).gguf()))).unwrap()).unwrap()
}

fn batch() -> Batch {
    Batch { ids: (0..16).map(|i| i * 11 % 90).collect(), tokens: 8 }
}

fn rows() -> Vec<(usize, Target)> {
    let teacher = vec![(3, 0.4), (17, 0.2), (40, 0.1)];
    (0..15)
        .filter(|i| i % 8 != 7)
        .map(|i| (i, Target { next: (i as u32 * 5) % 90, teacher: teacher.clone() }))
        .collect()
}

fn values(var: &Tensor) -> Vec<f32> {
    var.flatten_all().unwrap().to_vec1().unwrap()
}

fn loss_of(net: &Net, units: &[LayerUnits], adapters: &Adapters) -> Tensor {
    let pass = Pass::new(net, units, Some(adapters)).unwrap();
    loss(&pass.hidden(&batch()).unwrap(), &net.head, rows(), Mix { kl: 0.7, ce: 0.3 }).unwrap()
}

/// A step of each variable along a random direction changes the loss as its gradient says.
fn check(vars: &[Var], of: &dyn Fn() -> Tensor) {
    let grads = of().backward().unwrap();
    let mut random = Random::new(5);
    for (i, var) in vars.iter().enumerate() {
        let gradient = values(grads.get(var.as_tensor()).expect("a gradient"));
        let direction: Vec<f32> = gradient.iter().map(|_| random.unit() as f32 - 0.5).collect();
        let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        let start = values(var.as_tensor());
        let step = 2e-3;
        let at = |factor: f32| {
            let moved = start.iter().zip(&direction).map(|(v, d)| v + factor * step * d).collect::<Vec<f32>>();
            var.set(&Tensor::from_vec(moved, var.shape(), var.device()).unwrap()).unwrap();
            f64::from(of().to_scalar::<f32>().unwrap())
        };
        let measured = (at(1.0) - at(-1.0)) / (2.0 * f64::from(step));
        at(0.0);
        let bound = 0.03 * along.abs().max(measured.abs()) + 2e-3;
        assert!((measured - along).abs() <= bound, "variable {i}: {measured} measured, {along} by gradient");
    }
}

/// A model that is cut, and adapters of random numbers.
fn cut(arch: &'static str) -> (Net, Vec<LayerUnits>, Adapters) {
    let net = net(arch);
    let mut units = net.full();
    units[0] = LayerUnits { groups: 1, neurons: 64 };
    units[1] = LayerUnits { groups: 2, neurons: 32 };
    let adapters = Adapters::zeros(&net, &units, &[], 3).unwrap();
    let mut random = Random::new(9);
    for var in adapters.vars() {
        let values: Vec<f32> = (0..var.elem_count()).map(|_| (random.unit() as f32 - 0.5) * 0.5).collect();
        var.set(&Tensor::from_vec(values, var.shape(), var.device()).unwrap()).unwrap();
    }
    (net, units, adapters)
}

/// Two questions; a choice that shares its beginning with another, one that leaves the question early, one of one token.
fn questions() -> Vec<Asked> {
    let asked = |trunk: &[u32], choices: &[(&[u32], usize)], right| {
        let mut tree = Tree::new(trunk.to_vec());
        choices.iter().for_each(|(tokens, scored)| tree.add(tokens, *scored));
        Asked { tree, right }
    };
    vec![
        asked(&[1, 7, 30, 4], &[(&[1, 7, 30, 4, 9, 8], 2), (&[1, 7, 31, 2, 11], 2), (&[1, 7, 30, 4, 60], 1)], 1),
        asked(&[5, 6], &[(&[5, 6, 70, 71, 72], 3), (&[5, 6, 70, 12], 2)], 0),
    ]
}

#[test]
fn adapters() {
    for arch in ["llama", "qwen2"] {
        let (net, units, adapters) = cut(arch);
        check(&adapters.vars(), &|| loss_of(&net, &units, &adapters));
    }
}

#[test]
fn choices() {
    for arch in ["llama", "qwen2"] {
        let (net, units, adapters) = cut(arch);
        let of = || Pass::new(&net, &units, Some(&adapters)).unwrap().choice_loss(&questions()).unwrap();
        check(&adapters.vars(), &of);
        // It is what the choices' surprises come to.
        let pass = Pass::new(&net, &units, Some(&adapters)).unwrap();
        let trees: Vec<Tree> = questions().into_iter().map(|asked| asked.tree).collect();
        let surprises = pass.surprise_of_branches(&trees).unwrap();
        let nats = surprises
            .iter()
            .zip(questions())
            .map(|(surprises, asked)| surprises[asked.right] + surprises.iter().map(|s| (-s).exp()).sum::<f64>().ln());
        let (mean, loss) = (nats.sum::<f64>() / 2.0, f64::from(of().to_scalar::<f32>().unwrap()));
        assert!((mean - loss).abs() < 1e-4, "{arch}: {loss}, but {mean} by the surprises");
    }
}

#[test]
fn weights() {
    for arch in ["llama", "qwen2"] {
        let mut net = net(arch);
        let mut vars = Vec::new();
        for layer in &mut net.layers {
            for matrix in [
                &mut layer.q,
                &mut layer.k,
                &mut layer.v,
                &mut layer.o,
                &mut layer.gate,
                &mut layer.up,
                &mut layer.down,
            ] {
                let var = Var::from_tensor(matrix).unwrap();
                *matrix = var.as_tensor().clone();
                vars.push(var);
            }
        }
        let full = net.full();
        check(&vars, &|| loss_of(&net, &full, &Adapters::default()));
    }
}
