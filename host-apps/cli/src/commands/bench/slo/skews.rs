//! The same requests as if their classes had been drawn otherwise.
//!
//! A skew changes how often each class of target comes, and nothing about a request of a class. So what other skews would have
//! come to is the mean over these requests, each weighted by how much more often its class would have come.

use serde::Serialize;

use super::requests::{Request, weight};
use super::tally::Tally;
use super::versus::Versus;
use crate::table::table;

/// Skews that are told, those of ElastiLM's evaluation.
const SKEWS: [f64; 3] = [-0.25, 0.0, 0.25];

/// What a skew would have come to.
#[derive(Debug, Serialize)]
pub struct Skewed {
    pub skew: f64,
    pub policies: Vec<Versus>,
    pub first_less: Vec<Versus>,
}

/// Of requests that were drawn with `drawn`.
pub fn skewed(requests: &[Request], tallies: &[Tally], drawn: f64) -> Vec<Skewed> {
    let one = |skew: f64| {
        let weights = weights(requests, drawn, skew);
        let less = |other| Versus::of(&tallies[0], other, &weights);
        Skewed {
            skew,
            policies: tallies.iter().map(|tally| Versus::nothing(tally, &weights)).collect(),
            first_less: tallies.iter().skip(1).map(less).collect(),
        }
    };
    // A class that could not be drawn says nothing of skews in which it could.
    SKEWS.into_iter().filter(|_| drawn.abs() < 1.0 && !tallies.is_empty()).map(one).collect()
}

fn weights(requests: &[Request], drawn: f64, skew: f64) -> Vec<f64> {
    requests.iter().map(|request| weight(request.class, skew) / weight(request.class, drawn)).collect()
}

/// As text: a line for each skew and policy.
pub fn lines(skewed: &[Skewed]) -> String {
    let mut rows = vec![["SKEW", "POLICY", "RIGHT, %", "IN TIME, %", "BOTH, %"].map(str::to_owned)];
    for of in skewed {
        rows.extend(of.policies.iter().map(|v| {
            let [right, met, both] = [v.right, v.met, v.right_and_met].map(|share| share.points(false));
            [format!("{:+.2}", of.skew), v.policy.to_owned(), right, met, both]
        }));
    }
    table(&rows)
}
