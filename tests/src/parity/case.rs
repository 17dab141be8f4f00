//! One dispatch with all that it touches.

use concertina::record::{Recording, Slice, Work};
use concertina_shaders::{Params, Step, Variant};

use super::Buffer;

/// Judges what a run left in the buffers, binding by binding, by other means than the twin.
pub type Verify = dyn Fn(&[&[u32]]) -> Result<(), String>;

type Record = dyn Fn(&mut Recording, &'static Variant, &[Slice]);

/// One dispatch: a variant, its uniforms, its buffers.
pub struct Case {
    /// The variant.
    pub variant: &'static Variant,
    /// What is special about it.
    pub name: String,
    /// Uniform 0.
    pub step: Step,
    /// Bindings from 2 on.
    pub buffers: Vec<Buffer>,
    /// A check of its own, on the adapter's buffers and on the twin's.
    pub verify: Option<Box<Verify>>,
    record: Box<Record>,
}

impl Case {
    /// A dispatch as the engine records it.
    pub fn new<P: Params>(
        variant: &'static Variant,
        name: impl Into<String>,
        step: Step,
        params: P,
        work: [Work; 2],
        buffers: Vec<Buffer>,
    ) -> Self {
        let record = Box::new(move |recording: &mut Recording, variant: &'static Variant, args: &[Slice]| {
            recording.push(variant, &params, args, work);
        });
        Self { variant, name: name.into(), step, buffers, verify: None, record }
    }

    /// With a check of its own.
    pub fn with_verify(mut self, verify: impl Fn(&[&[u32]]) -> Result<(), String> + 'static) -> Self {
        self.verify = Some(Box::new(verify));
        self
    }

    /// The recording over these slices.
    pub fn recording(&self, args: &[Slice]) -> Recording {
        let mut recording = Recording::default();
        (self.record)(&mut recording, self.variant, args);
        recording
    }
}
