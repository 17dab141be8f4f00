//! Tens of thousands of wrong files: none may panic, none may make the reader allocate more than a small multiple of the
//! file's size, and errors name the field. The seeds are fixed, so a failure repeats.
#![allow(clippy::print_stderr)] // a test that is skipped says so

#[path = "mutations/allocator.rs"]
mod allocator;
#[path = "mutations/mutate.rs"]
mod mutate;

use concertina_formats::gguf::Gguf;
use concertina_formats::testing::{Field, FieldKind, Rng, TinyModel, header_fields, open_map, split_in_shards};
use concertina_formats::{ByteSource, DType, Error, MemorySource, arch, open_gguf, open_safetensors};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Most bytes live at once while reading `len` bytes of headers: strings of two bytes take ten in a file and about five
/// times that in memory, one buffer of the reader, and the spec's layers, at most 1024.
fn allocation_limit(len: usize) -> usize {
    8 * len + (128 << 10)
}

/// A header in memory, followed by zeros that nobody stored.
#[derive(Clone)]
struct HeaderSource {
    header: Arc<Vec<u8>>,
    len: u64,
}

impl ByteSource for HeaderSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        assert!(offset + out.len() as u64 <= self.len, "reads past the end");
        out.fill(0);
        let from = usize::try_from(offset).unwrap().min(self.header.len());
        let n = out.len().min(self.header.len() - from);
        out[..n].copy_from_slice(&self.header[from..from + n]);
        Ok(())
    }
}

/// What every error must do.
fn check_error(error: &Error, what: &str) {
    match error {
        Error::Malformed { field, problem } => {
            let named = [
                "GGUF",
                "tokenizer.",
                "metadata",
                "tensor",
                "rope",
                "norm",
                "scale",
                "window",
                ".json",
                ".safetensors",
                ".jinja",
            ];
            assert!(named.iter().any(|word| field.contains(word)), "{what}: no field in {field:?}");
            assert!(!problem.is_empty(), "{what}: {field}: no problem");
        }
        Error::Unsupported(text) | Error::Tokenizer(text) | Error::Template(text) => {
            assert!(text.len() > 5, "{what}: {text:?}");
        }
        Error::Io(e) => panic!("{what}: reads outside the source: {e}"),
        other => panic!("{what}: {other}"),
    }
}

/// Parse the header, then the model that it describes; `None` when both are accepted.
fn read_gguf(source: HeaderSource) -> Option<Error> {
    let len = source.len;
    let sources: Vec<Box<dyn ByteSource>> = vec![Box::new(source)];
    let gguf = match Gguf::parse(&*sources[0]) {
        Ok(gguf) => gguf,
        Err(error) => return Some(error),
    };
    for tensor in &gguf.tensors {
        let info = &tensor.info;
        assert!(info.offset.checked_add(info.bytes).unwrap() <= len, "{} outside", info.name);
        let (block, bytes) = info.dtype.block();
        assert_eq!(info.rows * info.cols / block * bytes, info.bytes as usize, "{}", info.name);
    }
    arch::from_gguf(&gguf, &sources).err()
}

/// Read one mutation under all checks.
fn check_gguf(source: HeaderSource, header_len: usize, what: &str) -> Option<Error> {
    let (result, peak) = allocator::peak(|| catch_unwind(AssertUnwindSafe(|| read_gguf(source))));
    let Ok(error) = result else { panic!("{what}: it panicked") };
    assert!(peak <= allocation_limit(header_len), "{what}: {peak} bytes for {header_len}");
    if let Some(error) = &error {
        check_error(error, what);
    }
    error
}

/// Random and field-aware mutations of one valid header.
fn mutate_header(name: &str, header: &[u8], len: u64, fields: &[Field], n: usize, seed: u64) -> usize {
    let data_len = len - header.len() as u64;
    let mut rng = Rng::new(seed);
    let mut refused = 0;
    for i in 0..n {
        let mut bytes = header.to_vec();
        let field = (rng.below(3) > 0).then(|| rng.pick(fields));
        match field {
            Some(field) => mutate::field(&mut bytes, field, &mut rng),
            None => mutate::bytes(&mut bytes, &mut rng),
        }
        let what = format!("{name}, mutation {i}: {field:?}");
        let limit = bytes.len().max(header.len());
        // Half of the sources end where the header does, so that claims have no data to hide in.
        let rest = if rng.below(2) == 0 { data_len } else { 0 };
        let source = HeaderSource { len: bytes.len() as u64 + rest, header: Arc::new(bytes) };
        // Where data follows, a long string may lie in it; the limit then is the file's size.
        let limit = if rest > 0 { limit.max(usize::try_from(len).unwrap()) } else { limit };
        let error = check_gguf(source, limit, &what);
        refused += usize::from(error.is_some());
        let (Some(error), Some(field)) = (error, field) else {
            continue;
        };
        let of_tensor =
            matches!(field.kind, FieldKind::Dims | FieldKind::Dim | FieldKind::TensorType | FieldKind::Offset);
        if of_tensor && rest > 0 && field.kind != FieldKind::Dims {
            assert!(error.to_string().contains(&field.owner), "{what}: {error} does not name it");
        }
    }
    refused
}

#[test]
fn tiny_gguf_headers() {
    for (arch, dtype, seed) in [("llama", DType::Q4_0, 1), ("qwen2", DType::F32, 2), ("gemma3", DType::Q6_K, 3)] {
        let tiny = TinyModel::new(arch).with_dtype(dtype);
        let file = tiny.gguf();
        let (fields, end) = header_fields(&file);
        let source = HeaderSource { header: Arc::new(file.clone()), len: file.len() as u64 };
        assert!(check_gguf(source, file.len(), "unchanged").is_none());
        let refused = mutate_header(arch, &file[..end], file.len() as u64, &fields, 10_000, seed);
        // Numbers, texts and names have values that are as good as the old ones, so not all can be refused.
        assert!(refused > 5_000, "{arch}: only {refused} refused");
    }
}

/// Whole files through [`open_gguf`], tokenizer and template included, every length and many flips.
#[test]
fn tiny_gguf_files() {
    let mut tiny = TinyModel::new("llama");
    tiny.n_layers = 1;
    let file = tiny.gguf();
    let (_, end) = header_fields(&file);
    let mut rng = Rng::new(4);
    for i in 0..400 {
        let mut bytes = file.clone();
        if i % 2 == 0 {
            bytes.truncate(rng.below(bytes.len()));
        } else {
            let at = rng.below(end);
            bytes[at] ^= 1 << rng.below(8);
        }
        let open = || open_gguf(Box::new(MemorySource(bytes))).err();
        let Ok(error) = catch_unwind(AssertUnwindSafe(open)) else { panic!("mutation {i} panicked") };
        if let Some(error) = error {
            check_error(&error, &format!("mutation {i}"));
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    let file = TinyModel::new("qwen2").with_dtype(DType::Q8_0).gguf();
    let (_, end) = header_fields(&file);
    for len in (0..end).step_by(7).chain([end, file.len() - 1]) {
        let source = HeaderSource { header: Arc::new(file[..len].to_vec()), len: len as u64 };
        assert!(check_gguf(source, len, "cut").is_some(), "{len} of {}", file.len());
    }
}

#[test]
fn real_gguf_header() {
    let dir = std::env::var_os("CONCERTINA_TEST_MODELS").map(std::path::PathBuf::from);
    let path = dir.map(|dir| dir.join("smollm2.gguf")).filter(|path| path.exists());
    let Some(path) = path else {
        eprintln!("skipped: no smollm2.gguf in the directory CONCERTINA_TEST_MODELS");
        return;
    };
    let file = std::fs::read(path).unwrap();
    let (fields, end) = header_fields(&file);
    mutate_header("smollm2", &file[..end], file.len() as u64, &fields, 1_000, 5);
}

#[test]
fn safetensors_directories() {
    let mut rng = Rng::new(6);
    let mut refused = 0;
    for (arch, shards) in [("llama", 1), ("gemma3", 2)] {
        let mut tiny = TinyModel::new(arch);
        (tiny.dim, tiny.ffn, tiny.n_heads, tiny.n_groups, tiny.head_dim) = (32, 32, 2, 1, 16);
        let mut files = tiny.safetensors();
        if shards > 1 {
            files = split_in_shards(files, shards);
        }
        let names: Vec<String> = files.keys().filter(|name| *name != "tokenizer.json").cloned().collect();
        for i in 0..5_000 {
            let name = rng.pick(&names);
            let mut changed = files.clone();
            let bytes = changed.get_mut(name).unwrap();
            mutate::json_file(bytes, name.ends_with(".safetensors"), &mut rng);
            let what = format!("{arch}, mutation {i} of {name}");
            let open = || open_safetensors(&open_map(&changed)).err();
            let (result, peak) = allocator::peak(|| catch_unwind(AssertUnwindSafe(open)));
            let Ok(error) = result else { panic!("{what}: it panicked") };
            let total: usize = changed.values().map(Vec::len).sum();
            // `open_map` copies each file, and the tokenizer, which is not ours, takes its own memory.
            assert!(peak <= allocation_limit(total) + (16 << 20), "{what}: {peak} bytes");
            if let Some(error) = error {
                check_error(&error, &what);
                refused += 1;
            }
        }
    }
    assert!(refused > 4_000, "only {refused} refused");
}
