//! The input is a GGUF file: its header is parsed, then its model is described.
#![no_main]

use concertina_formats::gguf::Gguf;
use concertina_formats::{ByteSource, MemorySource, arch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: concertina_fuzz::write_seeds_if_asked("gguf"), |data: &[u8]| {
    let sources: Vec<Box<dyn ByteSource>> = vec![Box::new(MemorySource(data.to_vec()))];
    let Ok(gguf) = Gguf::parse(&*sources[0]) else { return };
    for tensor in &gguf.tensors {
        let info = &tensor.info;
        let (block, bytes) = info.dtype.block();
        assert_eq!(info.bytes, (info.rows * info.cols / block * bytes) as u64);
        assert!(info.offset.checked_add(info.bytes).is_some_and(|end| end <= data.len() as u64));
    }
    if let Ok((spec, tensors)) = arch::from_gguf(&gguf, &sources) {
        assert_eq!(spec.layers.len(), tensors.layers.len());
        assert!(spec.layers.iter().all(|layer| layer.rope < spec.ropes.len()));
        assert_eq!(spec.n_heads % spec.n_groups, 0);
    }
});
