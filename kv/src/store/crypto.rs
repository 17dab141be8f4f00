//! Keys, sealing, and the randomness they take.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305};
use zeroize::Zeroizing;

/// A key, wiped when dropped.
pub(super) type Key = Zeroizing<[u8; 32]>;

pub(super) const TAG: usize = 16;
const NONCE: usize = 24;
/// What a sealed blob is longer than its contents.
pub(super) const OVERHEAD: usize = NONCE + TAG;
/// A sealed key.
pub(super) const WRAPPED: usize = 32 + OVERHEAD;

/// A key for one purpose, from another key and what names the purpose's object.
pub(super) fn derive(purpose: &str, from: &Key, object: &[u8]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(&from[..]).update(object);
    Zeroizing::new(*hasher.finalize().as_bytes())
}

/// A stream of random bytes from a seed that is as secret as a key and never used twice.
pub(super) struct Random(blake3::OutputReader);

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl Random {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("concertina kv store v1: randomness of one opening");
        hasher.update(seed);
        Self(hasher.finalize_xof())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill(&mut out);
        out
    }

    pub(super) fn key(&mut self) -> Key {
        Zeroizing::new(self.bytes())
    }

    pub(super) fn fork(&mut self) -> Self {
        Self::new(&self.key())
    }
}

/// Associated data: a purpose, then fields of fixed size.
#[derive(Clone)]
pub(super) struct Aad(Vec<u8>);

impl Aad {
    /// `purpose` must be unlike every other purpose, and none the start of another.
    pub(super) fn new(purpose: &[u8; 8]) -> Self {
        Self(purpose.to_vec())
    }

    pub(super) fn bytes<const N: usize>(mut self, field: &[u8; N]) -> Self {
        self.0.extend_from_slice(field);
        self
    }

    pub(super) fn number(self, field: u64) -> Self {
        self.bytes(&field.to_le_bytes())
    }

    /// Put another number in the place of the last.
    pub(super) fn set_last(&mut self, field: u32) {
        let at = self.0.len() - size_of::<u64>();
        self.0[at..].copy_from_slice(&u64::from(field).to_le_bytes());
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Nonce, ciphertext, tag. The nonce is random: 192 bits do not meet again.
pub(super) fn seal(key: &Key, random: &mut Random, aad: &Aad, plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE] = random.bytes();
    let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(plain);
    let cipher = XChaCha20Poly1305::new((&**key).into());
    let tag = cipher
        .encrypt_inout_detached((&nonce).into(), aad.as_slice(), (&mut out[NONCE..]).into())
        .expect("a blob is shorter than the cipher's 256 GiB");
    out.extend_from_slice(&tag);
    out
}

/// What [`seal`] sealed, or `None` where anything differs.
pub(super) fn open(key: &Key, aad: &Aad, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (body, tag) = rest.split_last_chunk::<TAG>()?;
    let mut plain = Zeroizing::new(body.to_vec());
    let cipher = XChaCha20Poly1305::new((&**key).into());
    let tag = Tag::from(*tag);
    cipher.decrypt_inout_detached(nonce.into(), aad.as_slice(), plain.as_mut_slice().into(), &tag).ok()?;
    Some(plain)
}

/// A key sealed by a key.
pub(super) fn open_key(key: &Key, aad: &Aad, sealed: &[u8]) -> Option<Key> {
    let plain = open(key, aad, sealed)?;
    Some(Zeroizing::new(plain.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_opens_only_as_it_was_sealed() {
        let mut random = Random::new(&[1; 32]);
        let (key, other) = (random.key(), random.key());
        let aad = Aad::new(b"testing.").number(7);
        let sealed = seal(&key, &mut random, &aad, b"tokens");
        assert_eq!(open(&key, &aad, &sealed).as_deref().map(Vec::as_slice), Some(&b"tokens"[..]));
        assert!(open(&other, &aad, &sealed).is_none());
        assert!(open(&key, &Aad::new(b"testing.").number(8), &sealed).is_none());
        for i in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[i] ^= 1;
            assert!(open(&key, &aad, &bad).is_none());
            assert!(open(&key, &aad, &sealed[..i]).is_none());
        }
        assert_ne!(sealed, seal(&key, &mut random, &aad, b"tokens"), "nonces are fresh");
    }
}
