//! The real models of the project open, with the hyperparameters that their publishers state.
//! They are found through `CONCERTINA_TEST_MODELS`, a directory of files named after the model.
#![allow(clippy::print_stderr)] // a test that is skipped says so

use concertina_formats::gguf::Gguf;
use concertina_formats::{Activation, ByteSource, DType, ModelSpec, ModelTensors, RopeStyle, arch, dequant};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Mutex;

struct FileSource(Mutex<File>, u64);

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let mut file = self.0.lock().unwrap();
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }
}

type Described = (ModelSpec, ModelTensors, Vec<Box<dyn ByteSource>>);

/// The model, or `None` with a printed line when it is not there.
fn open(name: &str) -> Option<Described> {
    let dir = std::env::var_os("CONCERTINA_TEST_MODELS").map(PathBuf::from);
    let file = dir.and_then(|dir| File::open(dir.join(format!("{name}.gguf"))).ok());
    let Some(file) = file else {
        eprintln!("skipped: no {name}.gguf in the directory CONCERTINA_TEST_MODELS");
        return None;
    };
    let len = file.metadata().unwrap().len();
    let sources: Vec<Box<dyn ByteSource>> = vec![Box::new(FileSource(Mutex::new(file), len))];
    let gguf = Gguf::parse(&*sources[0]).unwrap();
    let (spec, tensors) = arch::from_gguf(&gguf, &sources).unwrap();
    Some((spec, tensors, sources))
}

type Shape = (usize, usize, usize, usize, usize, usize, usize, usize);

fn shape(spec: &ModelSpec) -> Shape {
    let s = spec;
    (s.layers.len(), s.dim, s.ffn, s.n_heads, s.n_groups, s.head_dim, s.vocab, s.context_len)
}

/// The root mean square of the first rows of `info`, which weights keep well below 1.
fn rms(info: &concertina_formats::TensorInfo, sources: &[Box<dyn ByteSource>]) -> f32 {
    let rows = info.rows.min(16);
    let mut bytes = vec![0; info.bytes as usize / info.rows * rows];
    sources[0].read_at(info.offset, &mut bytes).unwrap();
    let mut values = vec![0.0; rows * info.cols];
    dequant::dequantize_row(info.dtype, &bytes, &mut values).unwrap();
    (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt()
}

fn check_weights(tensors: &ModelTensors, sources: &[Box<dyn ByteSource>]) {
    for layer in &tensors.layers {
        for info in [&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down] {
            let rms = rms(info, sources);
            assert!(rms > 1e-3 && rms < 1.0, "{}: {rms}", info.name);
        }
    }
}

#[test]
fn smollm2() {
    let Some((spec, tensors, sources)) = open("smollm2") else {
        return;
    };
    assert_eq!(shape(&spec), (30, 576, 1536, 9, 3, 64, 49152, 8192));
    assert_eq!((spec.arch.as_str(), spec.rope_style), ("llama", RopeStyle::Interleaved));
    assert_eq!((spec.ropes[0].base, spec.norm_eps, spec.attn_scale), (1e5, 1e-5, 0.125));
    assert_eq!((tensors.embed.dtype, &tensors.output), (DType::Q8_0, &None));
    assert_eq!(tensors.layers[0].q.dtype, DType::Q4_1);
    check_weights(&tensors, &sources);
}

#[test]
fn qwen_half_billion() {
    let Some((spec, tensors, sources)) = open("qwen05") else {
        return;
    };
    assert_eq!(shape(&spec), (24, 896, 4864, 14, 2, 64, 151_936, 32768));
    assert_eq!((spec.arch.as_str(), spec.rope_style), ("qwen2", RopeStyle::Halves));
    assert_eq!((spec.ropes[0].base, spec.norm_eps, spec.activation), (1e6, 1e-6, Activation::Silu));
    assert_eq!(tensors.embed.dtype, DType::Q5_0);
    assert_eq!(tensors.output.as_ref().unwrap().dtype, DType::Q8_0);
    assert!(tensors.layers.iter().all(|l| l.q_bias.is_some() && l.q_norm.is_none()));
    check_weights(&tensors, &sources);
}

#[test]
fn gemma() {
    let Some((spec, tensors, sources)) = open("gemma") else {
        return;
    };
    assert_eq!(shape(&spec), (18, 640, 2048, 4, 1, 256, 262_144, 32768));
    assert_eq!((spec.arch.as_str(), spec.rope_style), ("gemma3", RopeStyle::Halves));
    assert_eq!((spec.ropes[0].base, spec.ropes[1].base, spec.norm_eps), (1e6, 1e4, 1e-6));
    assert_eq!((spec.activation, spec.attn_scale), (Activation::GeluTanh, 1.0 / 16.0));
    assert_eq!((spec.embed_scale, spec.norm_offset), (640f32.sqrt(), 0.0));
    for (l, layer) in spec.layers.iter().enumerate() {
        let expected = if (l + 1) % 6 == 0 { (0, None) } else { (1, Some(512)) };
        assert_eq!((layer.rope, layer.window), expected, "layer {l}");
    }
    assert_eq!((tensors.embed.dtype, &tensors.output), (DType::Q8_0, &None));
    assert!(tensors.layers.iter().all(|l| l.q_norm.is_some() && l.post_ffn_norm.is_some()));
    check_weights(&tensors, &sources);
}
