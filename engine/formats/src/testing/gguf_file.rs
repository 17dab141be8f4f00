//! A [`TinyModel`] as a GGUF file.

use super::blocks::{encode_floats, random_blocks};
use super::{GgufWriter, Kind, Rng, TinyModel, TinyTensor, Vocabulary};
use crate::DType;
use crate::gguf::{Array, Value};

/// `tokenizer.ggml.token_type`: normal, control, unused.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

impl TinyModel {
    /// The bytes of a GGUF file.
    pub fn gguf(&self) -> Vec<u8> {
        self.gguf_writer().finish()
    }

    /// The file before it is finished, for tests that add to it.
    pub fn gguf_writer(&self) -> GgufWriter {
        let mut file = GgufWriter::default();
        self.hyperparameters(&mut file);
        self.tokenizer(&mut file);
        if !self.rope_factors.is_empty() {
            let data = encode_floats(DType::F32, &self.rope_factors);
            file.tensor("rope_freqs.weight", &[self.rope_factors.len() as u64], 0, &data);
        }
        for tensor in self.tensors() {
            let dims = [tensor.cols as u64, tensor.rows as u64];
            let dims = if tensor.rows == 1 { &dims[..1] } else { &dims[..] };
            let code = GgufWriter::code(tensor.dtype);
            file.tensor(&tensor.gguf, dims, code, &self.gguf_data(&tensor));
        }
        file
    }

    fn hyperparameters(&self, file: &mut GgufWriter) {
        let arch = self.arch;
        file.pair("general.architecture", Value::Str(arch.into()));
        file.pair("general.name", Value::Str(format!("Tiny {arch}")));
        let mut number = |key: &str, n: usize| {
            file.pair(&format!("{arch}.{key}"), Value::U32(n as u32));
        };
        number("block_count", self.n_layers);
        number("context_length", self.context_len);
        number("embedding_length", self.dim);
        number("feed_forward_length", self.ffn);
        number("attention.head_count", self.n_heads);
        number("attention.head_count_kv", self.n_groups);
        number("attention.key_length", self.head_dim);
        number("attention.value_length", self.head_dim);
        if arch == "gemma3" {
            number("attention.sliding_window", self.window);
            number("attention.sliding_window_pattern", self.window_pattern);
        }
        let base = self.rope_base() as f32;
        file.pair(&format!("{arch}.rope.freq_base"), Value::F32(base));
        file.pair(&format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(1e-6));
    }

    /// RoPE's base, of the global layers.
    pub(super) fn rope_base(&self) -> f64 {
        if self.arch == "llama" { 1e4 } else { 1e6 }
    }

    fn tokenizer(&self, file: &mut GgufWriter) {
        let Vocabulary { mut tokens, merges, first_special } = Vocabulary::new();
        let mut types = vec![NORMAL; first_special];
        types.resize(tokens.len(), CONTROL);
        types.resize(self.vocab(), UNUSED);
        for i in tokens.len()..self.vocab() {
            tokens.push(format!("[PAD{i}]"));
        }
        let pre = if self.arch == "llama" { "smollm" } else { "qwen2" };
        let special = first_special as u32;
        file.pair("tokenizer.ggml.model", Value::Str("gpt2".into()))
            .pair("tokenizer.ggml.pre", Value::Str(pre.into()))
            .pair("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens)))
            .pair("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))
            .pair("tokenizer.ggml.merges", Value::Array(Array::Str(merges)))
            .pair("tokenizer.ggml.bos_token_id", Value::U32(special))
            .pair("tokenizer.ggml.eos_token_id", Value::U32(special + 2))
            .pair("tokenizer.ggml.add_bos_token", Value::Bool(self.arch == "gemma3"));
        if let Some(template) = &self.chat_template {
            file.pair("tokenizer.chat_template", Value::Str(template.clone()));
        }
    }

    fn gguf_data(&self, tensor: &TinyTensor) -> Vec<u8> {
        let (rows, cols) = (tensor.rows, tensor.cols);
        if tensor.dtype.block().0 > 1 {
            let mut rng = Rng::named(self.seed, &tensor.gguf);
            return random_blocks(tensor.dtype, rows * cols, 1.0 / (cols as f32).sqrt(), &mut rng);
        }
        let values = self.floats(tensor);
        let values = match tensor.kind {
            Kind::Rotated(heads) if self.arch == "llama" => interleave(&values, heads, cols),
            Kind::RotatedBias(heads) if self.arch == "llama" => interleave(&values, heads, 1),
            _ => values,
        };
        encode_floats(tensor.dtype, &values)
    }
}

/// Move rows `i` and `i + d/2` of every head to `2i` and `2i + 1`: from RoPE in halves to interleaved pairs.
fn interleave(values: &[f32], heads: usize, cols: usize) -> Vec<f32> {
    let head = values.len() / heads;
    let half = head / cols / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head) {
        for i in 0..half {
            out.extend(&head[i * cols..(i + 1) * cols]);
            out.extend(&head[(i + half) * cols..(i + half + 1) * cols]);
        }
    }
    out
}
