//! Where the buffers of a case lie: two arenas, one for what kernels read and one for what they write (a device forbids
//! binding one buffer both ways), each buffer between guards.

use concertina_shaders::BindingKind;

use super::Case;

/// What guards hold: a NaN, so that reading one shows as well.
pub const GUARD: u32 = 0x7fa0_beef;

/// Least bytes of a guard.
const GUARD_BYTES: usize = 256;

/// Where a binding lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// 0: read only, 1: read and written.
    pub arena: usize,
    /// First word.
    pub first: usize,
    /// Words.
    pub len: usize,
}

/// The arenas of a case, before or after its dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Words of each arena.
    pub arenas: [Vec<u32>; 2],
    /// Bindings from 2 on.
    pub places: Vec<Place>,
}

impl Image {
    /// Lay out a case; bindings begin at multiples of `align` bytes.
    pub fn of(case: &Case, align: u64) -> Self {
        let align = (align as usize).max(4) / 4;
        let mut arenas = [Vec::new(), Vec::new()];
        let mut places: Vec<Place> = Vec::new();
        for (buffer, binding) in case.buffers.iter().zip(&case.variant.bindings[2..]) {
            if let Some(of) = buffer.alias {
                places.push(places[of]);
                continue;
            }
            let arena = usize::from(binding.kind == BindingKind::ReadWrite);
            let words = &mut arenas[arena];
            let first = (words.len() + GUARD_BYTES / 4).next_multiple_of(align);
            words.resize(first, GUARD);
            words.extend_from_slice(&buffer.words);
            places.push(Place { arena, first, len: buffer.words.len() });
        }
        for words in &mut arenas {
            words.resize(words.len() + GUARD_BYTES / 4, GUARD);
        }
        Self { arenas, places }
    }

    /// The same places with other contents.
    pub fn with(&self, arenas: [Vec<u32>; 2]) -> Self {
        Self { arenas, places: self.places.clone() }
    }

    /// Words of a binding, counted from the first storage buffer.
    pub fn words(&self, binding: usize) -> &[u32] {
        let place = self.places[binding];
        &self.arenas[place.arena][place.first..][..place.len]
    }

    /// Whether a word of an arena lies in no binding.
    pub fn is_guard(&self, arena: usize, word: usize) -> bool {
        !self.places.iter().any(|p| p.arena == arena && (p.first..p.first + p.len).contains(&word))
    }
}
