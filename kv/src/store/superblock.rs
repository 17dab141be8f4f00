//! The file `store`: which store this is, and its root key under the device key.

use zeroize::Zeroizing;

use super::crypto::{self, Aad, Key, Random, WRAPPED};
use super::error::{Error, Result};
use super::medium::Disk;

pub(super) const NAME: &str = "store";
/// The format that this program writes.
pub(super) const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"CNCRTKV\0";
/// Each copy has sectors of its own.
const COPY: usize = 512;
const USED: usize = 8 + 4 + 16 + WRAPPED;

pub(super) struct Superblock {
    pub(super) version: u32,
    pub(super) store: [u8; 16],
    pub(super) root: Key,
}

fn device_key(device_key: &[u8; 32]) -> Key {
    crypto::derive("concertina kv store v1: superblock", &Zeroizing::new(*device_key), &[])
}

fn aad(version: u32, store: &[u8; 16]) -> Aad {
    Aad::new(b"sblock.1").number(version.into()).bytes(store)
}

fn parse(device: &Key, copy: &[u8]) -> Result<Superblock> {
    let field = |at: usize, len: usize| copy.get(at..at + len).ok_or(Error::WrongKey);
    if field(0, 8)? != MAGIC {
        return Err(Error::WrongKey);
    }
    let version = u32::from_le_bytes(field(8, 4)?.try_into().unwrap_or_default());
    if !(1..=VERSION).contains(&version) {
        return Err(Error::Version { found: version, known: VERSION });
    }
    let store: [u8; 16] = field(12, 16)?.try_into().unwrap_or_default();
    let root = crypto::open_key(device, &aad(version, &store), field(28, WRAPPED)?).ok_or(Error::WrongKey)?;
    Ok(Superblock { version, store, root })
}

/// Read it. `None` where no store was ever finished here, so that nothing can have been promised.
pub(super) fn read(disk: &Disk, device: &[u8; 32]) -> Result<Option<Superblock>> {
    let Some(len) = disk.len(NAME) else { return Ok(None) };
    let mut bytes = vec![0; len.min(2 * COPY as u64) as usize];
    disk.read_at(NAME, 0, &mut bytes).map_err(Error::io("reading the superblock"))?;
    let (first, second) = bytes.split_at(bytes.len().min(COPY));
    // The second copy is written after the first is synced, so without it the store was never handed out.
    if second.len() < USED || second.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let device = device_key(device);
    let read = match (parse(&device, first), parse(&device, second)) {
        (Ok(superblock), Ok(second)) if superblock.version == second.version => return Ok(Some(superblock)),
        // The second copy is damaged, or a power cut left it of the version before an upgrade.
        (Ok(superblock), _) => {
            write_copy(disk, 1, first)?;
            superblock
        }
        (Err(_), Ok(superblock)) => {
            write_copy(disk, 0, second)?;
            superblock
        }
        // A version that only one copy has is a flipped bit; then the other copy's error is as good.
        (Err(Error::Version { found, known }), Err(Error::Version { found: again, .. })) if found == again => {
            return Err(Error::Version { found, known });
        }
        // A first copy that opens not, and a second that was being written for the first time.
        (Err(_), Err(error)) => return Err(error),
    };
    Ok(Some(read))
}

fn write_copy(disk: &Disk, copy: u64, bytes: &[u8]) -> Result<()> {
    let action = Error::io("writing the superblock");
    disk.write_at(NAME, copy * COPY as u64, &bytes[..USED.min(bytes.len())]).map_err(&action)?;
    disk.sync(NAME).map_err(&action)
}

/// A new store's name and root key, not yet on disk.
pub(super) fn invent(random: &mut Random) -> Superblock {
    Superblock { version: VERSION, store: random.bytes(), root: random.key() }
}

/// The last step of making or upgrading a store.
pub(super) fn write(disk: &Disk, device: &[u8; 32], superblock: &Superblock, random: &mut Random) -> Result<()> {
    let mut bytes = Vec::with_capacity(USED);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&superblock.version.to_le_bytes());
    bytes.extend_from_slice(&superblock.store);
    let aad = aad(superblock.version, &superblock.store);
    let root = crypto::seal(&device_key(device), random, &aad, &superblock.root[..]);
    bytes.extend_from_slice(&root);
    write_copy(disk, 0, &bytes)?;
    write_copy(disk, 1, &bytes)
}
