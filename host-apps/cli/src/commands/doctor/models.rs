//! Which models are downloaded, and whether they are what they should be.

use super::Finding;
use crate::models::cache::State;
use crate::models::catalogue::Model;
use crate::models::resolve::Resolver;
use crate::pull::{human_bytes, verify};

const SECTION: &str = "models";

pub fn models_section(resolver: &Resolver, verify_all: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for model in resolver.catalogue.models() {
        findings.extend(look_at(resolver, model, verify_all));
    }
    findings
}

fn look_at(resolver: &Resolver, model: &Model, verify_all: bool) -> Option<Finding> {
    let cache = &resolver.cache;
    let again = format!("concertina pull --force {}", model.name);
    let finding = match cache.state(model) {
        Err(e) => Finding::warning(SECTION, &model.name, format!("{e:#}"), again),
        Ok(State::Absent) if cache.partial_dir(model).exists() => Finding::warning(
            SECTION,
            &model.name,
            "a download was interrupted",
            format!("concertina pull {} goes on with it", model.name),
        ),
        Ok(State::Absent) if model.name == resolver.catalogue.default_name() => Finding::warning(
            SECTION,
            &model.name,
            "the default model is not downloaded; the first use gets it",
            format!("concertina pull ({})", human_bytes(model.bytes)),
        ),
        Ok(State::Absent) => return None,
        Ok(State::WrongSize(found)) => {
            Finding::warning(SECTION, &model.name, format!("has {found} bytes instead of {}", model.bytes), again)
        }
        Ok(_) if verify_all => match verify(cache, model) {
            Ok(true) => Finding::ok(SECTION, &model.name, "downloaded, hash checked just now"),
            Ok(false) => Finding::warning(SECTION, &model.name, "has the wrong hash", again),
            Err(e) => Finding::warning(SECTION, &model.name, format!("{e:#}"), again),
        },
        Ok(State::Verified) => Finding::ok(SECTION, &model.name, "downloaded, hash checked when it was pulled"),
        Ok(State::Unverified) => Finding::warning(
            SECTION,
            &model.name,
            "downloaded, but changed since its hash was checked",
            "concertina doctor --verify",
        ),
    };
    Some(finding)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Status;
    use super::*;
    use crate::models::cache::Cache;
    use crate::models::catalogue::Catalogue;
    use crate::pull::Options;

    #[test]
    fn states_are_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = Resolver {
            catalogue: Catalogue::load(None).unwrap(),
            cache: Cache::at(dir.path()),
            pull: Options::for_tests(),
            offline: true,
        };
        let findings = models_section(&resolver, false);
        assert_eq!(findings.len(), 1, "only the default model is spoken of when none is here");
        assert_eq!(findings[0].status, Status::Warning);

        let model = resolver.catalogue.find("smollm2").unwrap();
        fs::create_dir_all(resolver.cache.models_dir()).unwrap();
        let file = fs::File::create(resolver.cache.model_path(model)).unwrap();
        assert!(models_section(&resolver, false)[0].detail.contains("0 bytes instead of 98362432"));
        file.set_len(model.bytes).unwrap();
        assert!(models_section(&resolver, false)[0].fix.as_ref().unwrap().contains("--verify"));
        assert!(models_section(&resolver, true)[0].detail.contains("wrong hash"));
        resolver.cache.mark_verified(model).unwrap();
        assert_eq!(models_section(&resolver, false)[0].status, Status::Ok);
    }
}
