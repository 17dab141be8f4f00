//! The system's keyring: Keychain, Credential Manager, or a Secret Service on D-Bus.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use keyring::{Entry, Error};

use super::key::{DeviceKey, Keyring};

/// A keyring may ask its user for a password. Where nobody is there to type one, the file takes its place.
const PATIENCE: Duration = Duration::from_secs(10);

/// The keyring that the system has, if it has one.
pub struct Platform;

impl Keyring for Platform {
    fn load(&self) -> Result<Option<DeviceKey>> {
        let secret = patiently(|| match entry()?.get_secret() {
            Ok(secret) => Ok(Some(zeroize::Zeroizing::new(secret))),
            Err(Error::NoEntry) => Ok(None),
            Err(e) => Err(e.into()),
        })?;
        let Some(secret) = secret else { return Ok(None) };
        let key = <[u8; 32]>::try_from(secret.as_slice()).context("the keyring's device key is not 32 bytes")?;
        Ok(Some(DeviceKey::new(key)))
    }

    fn store(&self, key: &DeviceKey) -> Result<()> {
        let key = key.clone();
        patiently(move || Ok(entry()?.set_secret(&key[..])?))
    }
}

fn entry() -> Result<Entry> {
    if let Err(why) = Entry::store_status() {
        bail!("{why}");
    }
    Ok(Entry::new("concertina", "device key")?)
}

/// The job's result, unless it takes too long; then its thread is left behind.
fn patiently<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, result) = mpsc::channel();
    let run = move || drop(sender.send(job()));
    std::thread::Builder::new().name("keyring".into()).spawn(run).context("no thread for the keyring")?;
    result.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(anyhow!("it does not answer")))
}
