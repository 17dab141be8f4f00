//! Policies of contexts by name.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use concertina::service::Policy;

/// Reads the name of one.
pub fn policies() -> impl TypedValueParser<Value = Policy> {
    let named = |name: String| Policy::ALL.into_iter().find(|policy| policy.name() == name).unwrap_or(Policy::Ours);
    PossibleValuesParser::new(Policy::ALL.map(Policy::name)).map(named)
}
