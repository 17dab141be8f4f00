//! Sealing and opening the extents of a chunk. Where restores must be fast, ring does it: with vector instructions for AES it
//! opens several GB/s on a core, some five times as fast as the portable crates, which seal the same bytes in a browser.

use super::crypto::{Aad, Key, TAG};

#[cfg(not(target_arch = "wasm32"))]
use native as engine;
#[cfg(target_arch = "wasm32")]
use portable as engine;

/// What extents are sealed with. Both are authenticated and take keys of 256 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cipher {
    /// ChaCha20-Poly1305: the faster one where there are no instructions for AES.
    ChaCha20Poly1305 = 0,
    /// AES-256-GCM: the faster one where there are.
    Aes256Gcm = 1,
}

impl Cipher {
    /// The faster one on this processor.
    pub fn fastest() -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        let aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
        let aes = false;
        if aes { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::ChaCha20Poly1305, Self::Aes256Gcm].into_iter().find(|cipher| *cipher as u8 == code)
    }
}

/// A chunk's key, made ready for all its extents.
pub(super) struct ExtentKey(engine::Ready);

impl ExtentKey {
    pub(super) fn new(cipher: Cipher, key: &Key) -> Self {
        Self(engine::Ready::new(cipher, key))
    }

    /// Append an extent, sealed, to `out`.
    pub(super) fn seal(&self, layer: u32, aad: &Aad, plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self.0.seal(nonce(layer), aad.as_slice(), &mut out[start..]);
        out.extend_from_slice(&tag);
    }

    /// Open an extent in place: its plain contents are all but the tag at its end. Where it returns false they are of no use.
    pub(super) fn open(&self, layer: u32, aad: &Aad, extent: &mut [u8]) -> bool {
        extent.len() >= TAG && self.0.open(nonce(layer), aad.as_slice(), extent)
    }
}

/// The nonce of an extent is its layer: a chunk's key is random and seals each layer once.
fn nonce(layer: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&layer.to_le_bytes());
    nonce
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::{Cipher, Key, TAG};

    /// Unlike our own keys, ring's are not wiped when they are dropped.
    pub struct Ready(LessSafeKey);

    impl Ready {
        pub fn new(cipher: Cipher, key: &Key) -> Self {
            let algorithm = match cipher {
                Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
                Cipher::Aes256Gcm => &AES_256_GCM,
            };
            Self(LessSafeKey::new(UnboundKey::new(algorithm, &key[..]).expect("both take keys of 32 bytes")))
        }

        pub fn seal(&self, nonce: [u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; TAG] {
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), body);
            let tag = tag.expect("an extent is shorter than what either cipher takes: 64 GiB");
            tag.as_ref().try_into().expect("both have tags of 16 bytes")
        }

        pub fn open(&self, nonce: [u8; 12], aad: &[u8], extent: &mut [u8]) -> bool {
            self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), extent).is_ok()
        }
    }
}

#[cfg(any(test, target_arch = "wasm32"))]
mod portable {
    use aes_gcm::Aes256Gcm;
    use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
    use chacha20poly1305::{ChaCha20Poly1305, Tag};

    use super::{Cipher, Key, TAG};

    pub enum Ready {
        ChaCha20Poly1305(ChaCha20Poly1305),
        Aes256Gcm(Box<Aes256Gcm>),
    }

    impl Ready {
        pub fn new(cipher: Cipher, key: &Key) -> Self {
            let key = (&**key).into();
            match cipher {
                Cipher::ChaCha20Poly1305 => Self::ChaCha20Poly1305(ChaCha20Poly1305::new(key)),
                Cipher::Aes256Gcm => Self::Aes256Gcm(Box::new(Aes256Gcm::new(key))),
            }
        }

        pub fn seal(&self, nonce: [u8; 12], aad: &[u8], body: &mut [u8]) -> [u8; TAG] {
            let tag = match self {
                Self::ChaCha20Poly1305(key) => key.encrypt_inout_detached((&nonce).into(), aad, body.into()),
                Self::Aes256Gcm(key) => key.encrypt_inout_detached((&nonce).into(), aad, body.into()),
            };
            tag.expect("an extent is shorter than what either cipher takes: 64 GiB").into()
        }

        pub fn open(&self, nonce: [u8; 12], aad: &[u8], extent: &mut [u8]) -> bool {
            let Some((body, tag)) = extent.split_last_chunk_mut::<TAG>() else { return false };
            let (nonce, tag, body) = (nonce, Tag::from(*tag), body.into());
            match self {
                Self::ChaCha20Poly1305(key) => key.decrypt_inout_detached((&nonce).into(), aad, body, &tag),
                Self::Aes256Gcm(key) => key.decrypt_inout_detached((&nonce).into(), aad, body, &tag),
            }
            .is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::crypto::Random;
    use super::*;

    #[test]
    fn an_extent_opens_only_in_its_place() {
        for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
            let mut random = Random::new(&[2; 32]);
            let key = ExtentKey::new(cipher, &random.key());
            let aad = Aad::new(b"testing.");
            let mut sealed = Vec::new();
            key.seal(3, &aad, b"keys and values", &mut sealed);
            assert_eq!(Cipher::of(cipher as u8), Some(cipher));
            let mut good = sealed.clone();
            assert!(key.open(3, &aad, &mut good) && good.starts_with(b"keys and values"));
            assert!(!key.open(4, &aad, &mut sealed.clone()));
            assert!(!key.open(3, &aad, &mut sealed[..9].to_vec()));
            assert!(!key.open(3, &Aad::new(b"Testing."), &mut sealed.clone()));
            for i in 0..sealed.len() {
                let mut bad = sealed.clone();
                bad[i] ^= 1;
                assert!(!key.open(3, &aad, &mut bad), "{cipher:?} at {i}");
            }
        }
    }

    /// Stores are moved between machines, and a browser's between builds.
    #[test]
    fn both_engines_seal_the_same_bytes() {
        for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
            let mut random = Random::new(&[3; 32]);
            let key = random.key();
            let (native, portable) = (native::Ready::new(cipher, &key), portable::Ready::new(cipher, &key));
            for len in [0, 1, 15, 16, 17, 64, 1000, 3456] {
                let plain: Vec<u8> = (0..len).map(|i: usize| (i * 7) as u8).collect();
                let (mut a, mut b) = (plain.clone(), plain.clone());
                let (of_a, of_b) = (native.seal(nonce(5), b"aad", &mut a), portable.seal(nonce(5), b"aad", &mut b));
                assert_eq!((&a, of_a), (&b, of_b), "{cipher:?}, {len} bytes");
                a.extend(of_a);
                b.extend(of_b);
                assert!(native.open(nonce(5), b"aad", &mut b) && portable.open(nonce(5), b"aad", &mut a));
                assert_eq!((&a[..len], &b[..len]), (&plain[..], &plain[..]));
            }
        }
    }
}
