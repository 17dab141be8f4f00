//! The device key: found where it was put, made only where there is no store that needs an older one.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use zeroize::Zeroizing;

use super::key_file::{self, KeyFile};

/// The secret that opens stores. It is wiped when dropped.
pub type DeviceKey = Zeroizing<[u8; 32]>;

/// The platform's keyring.
pub trait Keyring {
    /// The key that it holds, if any; an error where it cannot be asked.
    fn load(&self) -> Result<Option<DeviceKey>>;
    /// Have it hold a key.
    fn store(&self, key: &DeviceKey) -> Result<()>;
}

/// The keyring of this platform, where the program is built with one.
pub fn platform_keyring() -> Option<Box<dyn Keyring>> {
    #[cfg(feature = "keyring")]
    return Some(Box::new(super::keyring::Platform));
    #[cfg(not(feature = "keyring"))]
    None
}

/// Where keys may be.
pub struct Keys<'a> {
    /// The directory that the store's directory is in.
    pub beside: &'a Path,
    pub keyring: Option<&'a dyn Keyring>,
}

impl Keys<'_> {
    /// Every key that may open a store that exists: at least one.
    pub fn find(&self) -> Result<Vec<DeviceKey>> {
        let file = KeyFile::beside(self.beside);
        let mut found = Vec::new();
        found.extend(file.load()?);
        let mut why = String::new();
        match self.keyring.map(Keyring::load) {
            Some(Ok(key)) => found.extend(key),
            Some(Err(e)) => why = format!(" The system's keyring cannot be asked: {e:#}."),
            None => {}
        }
        if found.is_empty() {
            bail!(
                "there is a store, but its key is not found: {} is missing.{why} Without it nothing in the store can be \
                 read. Bring the key back, or delete the store's directory to begin anew",
                file.path().display()
            );
        }
        Ok(found)
    }

    /// The key for a new store. One that is there already is used: other stores may need it.
    pub fn find_or_make(&self) -> Result<DeviceKey> {
        let file = KeyFile::beside(self.beside);
        if let Some(key) = file.load()? {
            return Ok(key);
        }
        match self.keyring.map(in_keyring) {
            Some(Ok(key)) => return Ok(key),
            Some(Err(e)) => log::info!("the device key goes to {}: no keyring ({e:#})", key_file::NAME),
            None => {}
        }
        file.make(&random()?)
    }
}

/// The keyring's key, made there where it has none.
fn in_keyring(keyring: &dyn Keyring) -> Result<DeviceKey> {
    if let Some(key) = keyring.load()? {
        return Ok(key);
    }
    let key = random()?;
    keyring.store(&key)?;
    // What cannot be read back, or reads back as another's key, is of no use tomorrow.
    match keyring.load()? {
        Some(kept) => Ok(kept),
        None => bail!("the keyring did not keep the key"),
    }
}

fn random() -> Result<DeviceKey> {
    let mut key = DeviceKey::default();
    getrandom::fill(&mut key[..]).map_err(|e| anyhow!("the system gives no random numbers: {e}"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A keyring that holds a key, or fails.
    struct Fake(RefCell<Option<DeviceKey>>, bool);

    impl Keyring for Fake {
        fn load(&self) -> Result<Option<DeviceKey>> {
            if self.1 { Ok(self.0.borrow().clone()) } else { bail!("locked") }
        }

        fn store(&self, key: &DeviceKey) -> Result<()> {
            self.load()?;
            self.0.replace(Some(key.clone()));
            Ok(())
        }
    }

    #[test]
    fn the_keyring_comes_first_for_new_keys_and_the_file_where_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let works = Fake(RefCell::default(), true);
        let keys = Keys { beside: dir.path(), keyring: Some(&works) };
        let first = keys.find_or_make().unwrap();
        assert_eq!(works.0.borrow().as_ref(), Some(&first));
        assert_eq!(keys.find_or_make().unwrap(), first);
        assert!(!KeyFile::beside(dir.path()).path().exists());
        assert_eq!(keys.find().unwrap(), std::slice::from_ref(&first));

        let fails = Fake(RefCell::default(), false);
        let keys = Keys { beside: dir.path(), keyring: Some(&fails) };
        let error = keys.find().unwrap_err().to_string();
        assert!(error.contains("its key is not found") && error.contains("locked"), "{error}");
        let second = keys.find_or_make().unwrap();
        assert_ne!(second, first);
        let keys = Keys { beside: dir.path(), keyring: Some(&works) };
        assert_eq!(keys.find().unwrap(), [second, first], "either may have made the store");
    }
}
