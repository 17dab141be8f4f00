//! Other kernels in the place of each product of a pass.

use concertina::Rival;
use serde_json::{Value, json};

use crate::data::stats::median;

/// A kind of product with every kernel in its place, the fastest first.
pub struct Place {
    pub shape: String,
    pub own: &'static str,
    pub count: usize,
    /// Kernels, and microseconds of a dispatch without its timestamp: the median over rounds.
    pub us: Vec<(&'static str, f64)>,
}

impl Place {
    /// The fastest kernel's time over that of the one which the pass has.
    pub fn of_best(&self) -> f64 {
        let best = self.us.first().map_or(0.0, |(_, us)| *us);
        self.us.iter().find(|(name, _)| *name == self.own).map_or(0.0, |(_, us)| best / us)
    }
}

/// The places of a pass, a timestamp of which adds `stamp_ns`.
pub fn places(rivals: &[Rival], stamp_ns: f64) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for rival in rivals {
        let Some(first) = rival.rounds.first() else { continue };
        let times: Vec<f64> = rival.rounds.iter().map(|d| (d.ns - stamp_ns) / 1e3).collect();
        let us = (first.variant.name, median(&times).unwrap_or(0.0).max(0.1));
        let (shape, own) = (first.shape.clone(), rival.own.name);
        match places.iter_mut().find(|p| (&p.shape, p.own, p.count) == (&shape, own, rival.count)) {
            Some(place) => place.us.push(us),
            None => places.push(Place { shape, own, count: rival.count, us: vec![us] }),
        }
    }
    places.iter_mut().for_each(|place| place.us.sort_by(|a, b| a.1.total_cmp(&b.1)));
    places
}

/// Places as text.
pub fn text(places: &[Place]) -> String {
    let mut text = "\nevery kernel in each place of the pass, us each without a timestamp\n".to_owned();
    for place in places {
        text += &format!(
            "  {} x {}: {} at {:.0} % of the best\n",
            place.count,
            place.shape,
            place.own,
            100.0 * place.of_best()
        );
        for (name, us) in &place.us {
            text += &format!("    {name:<30} {us:>9.1}\n");
        }
    }
    text
}

/// Places as JSON.
pub fn as_json(places: &[Place]) -> Value {
    let told = |place: &Place| {
        let us: Vec<Value> = place.us.iter().map(|(name, us)| json!({ "kernel": name, "us": us })).collect();
        json!({ "shape": place.shape, "count": place.count, "own": place.own, "of_best": place.of_best(), "kernels": us })
    };
    places.iter().map(told).collect()
}
