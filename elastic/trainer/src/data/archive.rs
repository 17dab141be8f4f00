//! Members of archives, without unpacking them to disk.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;

/// Members of a gzipped tar whose names `wanted` accepts, in the order of their names.
pub fn tar_members(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Vec<u8>)>> {
    let read = || -> Result<Vec<(String, Vec<u8>)>> {
        let file = BufReader::new(File::open(path)?);
        let mut archive = tar::Archive::new(GzDecoder::new(file));
        let mut found = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().into_owned();
            if wanted(&name) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                found.push((name, bytes));
            }
        }
        found.sort();
        Ok(found)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// One gzipped member of a zip archive, unpacked.
pub fn gz_member(path: &Path, name: &str) -> Result<Vec<u8>> {
    let read = || -> Result<Vec<u8>> {
        let mut archive = zip::ZipArchive::new(BufReader::new(File::open(path)?))?;
        let mut bytes = Vec::new();
        GzDecoder::new(archive.by_name(name)?).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().with_context(|| format!("cannot read {name} in {}", path.display()))
}
