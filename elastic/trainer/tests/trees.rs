//! Continuations of a shared beginning have the likelihoods that each has on its own.

use concertina_elastic::LayerUnits;
use concertina_formats::testing::TinyModel;
use concertina_formats::{MemorySource, open_gguf};
use concertina_trainer::net::{Batch, Net, Pass, Tree};
use concertina_trainer::ops::head::surprises;
use concertina_trainer::random::Random;

#[test]
fn branches_are_sequences_of_their_own() {
    for arch in ["llama", "qwen2"] {
        let net = Net::load(&open_gguf(Box::new(MemorySource(TinyModel::new(arch).gguf()))).unwrap()).unwrap();
        let mut units = net.full();
        units[1] = LayerUnits { groups: 1, neurons: 64 };
        let pass = Pass::new(&net, &units, None).unwrap();
        let mut random = Random::new(3);
        let mut tokens = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(90) as u32).collect() };
        let mut expected = Vec::new();
        let mut trees = Vec::new();
        for trunk in [7, 1, 12] {
            let mut tree = Tree::new(tokens(trunk));
            let mut alone = Vec::new();
            // After all of the trunk, after some of it, and after none; a part scored, and all that is its own.
            for (shared, own, scored) in [(trunk, 3, 3), (trunk / 2, 5, 2), (0, 4, 1), (trunk, 1, 1)] {
                let line = [&tree.trunk[..shared], &tokens(own)].concat();
                tree.add(&line, scored);
                let hidden = pass.hidden(&Batch { ids: line.clone(), tokens: line.len() }).unwrap();
                let each = surprises(&hidden, &net.head, &line, line.len()).unwrap();
                alone.push(each[each.len() - scored..].iter().map(|s| f64::from(*s)).sum::<f64>());
            }
            expected.push(alone);
            trees.push(tree);
        }
        let found = pass.surprise_of_branches(&trees).unwrap();
        let pairs = found.iter().flatten().zip(expected.iter().flatten());
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4]);
        assert!(worst < 1e-4, "{arch}: off by {worst}");
        assert_eq!(pass.surprise_of_many(&trees).unwrap().len(), 3);
        let mut nothing_before = Tree::new(vec![]);
        nothing_before.add(&[1], 1);
        assert!(pass.surprise_of_branches(&[nothing_before]).is_err());
    }
}
