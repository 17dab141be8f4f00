//! Which bytes of the segment files are free.

use std::collections::BTreeMap;

use super::medium::SEGMENT_PREFIX;

/// Where a chunk's extents lie, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

pub(super) fn segment_name(segment: u32) -> String {
    format!("{SEGMENT_PREFIX}{segment:08x}")
}

pub(super) fn segment_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(SEGMENT_PREFIX)?;
    u32::from_str_radix(digits, 16).ok().filter(|segment| segment_name(*segment) == name)
}

#[derive(Debug, Default, Clone)]
struct Segment {
    /// Nothing is used from here on.
    end: u32,
    /// Free ranges below the end, by offset.
    holes: BTreeMap<u32, u32>,
}

/// Free space of all segments. First fit from the front, so that files stay short.
#[derive(Debug, Default, Clone)]
pub(super) struct Space {
    segment_bytes: u32,
    segments: BTreeMap<u32, Segment>,
    used: u64,
}

impl Space {
    /// From the runs in use. Returns `None` where two overlap or one leaves its segment.
    pub(super) fn from_runs(segment_bytes: u32, mut runs: Vec<Run>) -> Option<Self> {
        runs.sort_unstable();
        let mut space = Self { segment_bytes, ..Self::default() };
        for run in runs {
            let segment = space.segments.entry(run.segment).or_default();
            let end = run.offset.checked_add(run.len)?;
            if run.offset < segment.end {
                return None;
            }
            if run.offset > segment.end {
                segment.holes.insert(segment.end, run.offset - segment.end);
            }
            segment.end = end;
            space.used += u64::from(run.len);
        }
        Some(space)
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Where each segment's last used byte ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = (u32, u32)> {
        self.segments.iter().map(|(segment, state)| (*segment, state.end))
    }

    pub(super) fn take(&mut self, len: u32) -> Run {
        self.used += u64::from(len);
        for (&segment, state) in &mut self.segments {
            let hole = state.holes.iter().find(|(_, size)| **size >= len).map(|(offset, size)| (*offset, *size));
            if let Some((offset, size)) = hole {
                state.holes.remove(&offset);
                if size > len {
                    state.holes.insert(offset + len, size - len);
                }
                return Run { segment, offset, len };
            }
            if state.end.checked_add(len).is_some_and(|end| end <= self.segment_bytes) {
                let offset = state.end;
                state.end += len;
                return Run { segment, offset, len };
            }
        }
        let segment = (0..).find(|segment| !self.segments.contains_key(segment)).unwrap_or(u32::MAX);
        self.segments.insert(segment, Segment { end: len, holes: BTreeMap::new() });
        Run { segment, offset: 0, len }
    }

    pub(super) fn give(&mut self, run: Run) {
        let Some(state) = self.segments.get_mut(&run.segment) else { return };
        self.used -= u64::from(run.len);
        let (mut offset, mut len) = (run.offset, run.len);
        if let Some((&before, &size)) = state.holes.range(..offset).next_back()
            && before + size == offset
        {
            state.holes.remove(&before);
            (offset, len) = (before, len + size);
        }
        if let Some(size) = state.holes.remove(&(offset + len)) {
            len += size;
        }
        if offset + len == state.end {
            state.end = offset;
        } else {
            state.holes.insert(offset, len);
        }
        if state.end == 0 {
            self.segments.remove(&run.segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;

    #[test]
    fn runs_never_overlap_and_space_comes_back() {
        let mut random = SplitMix::new(7);
        let mut space = Space { segment_bytes: 1000, ..Space::default() };
        let mut runs: Vec<Run> = Vec::new();
        for _ in 0..5000 {
            if random.chance(0.52) || runs.is_empty() {
                runs.push(space.take(1 + random.below(300) as u32));
            } else {
                space.give(runs.swap_remove(random.below(runs.len() as u64) as usize));
            }
            assert_eq!(space.used(), runs.iter().map(|run| u64::from(run.len)).sum::<u64>());
        }
        let rebuilt = Space::from_runs(1000, runs.clone()).expect("no overlap");
        assert_eq!(rebuilt.used(), space.used());
        assert_eq!(rebuilt.ends().collect::<Vec<_>>(), space.ends().collect::<Vec<_>>());
        for run in runs.drain(..) {
            space.give(run);
        }
        assert_eq!((space.used(), space.segments.len()), (0, 0));
        let twice = Run { segment: 0, offset: 0, len: 2 };
        assert!(Space::from_runs(1000, vec![twice, twice]).is_none());
    }

    #[test]
    fn segment_names_read_back() {
        assert_eq!(segment_of(&segment_name(0xab)), Some(0xab));
        for name in ["seg.", "seg.zz", "seg.1", "store"] {
            assert_eq!(segment_of(name), None);
        }
    }
}
