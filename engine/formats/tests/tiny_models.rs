//! Complete little models of every architecture open, from both worlds, with the same spec and shapes.

use concertina_formats::testing::{TinyModel, open_map, split_in_shards};
use concertina_formats::{
    DType, Error, MemorySource, Model, ModelSpec, RopeStyle, TensorInfo, dequant, open_gguf, open_safetensors,
};

const ARCHS: [&str; 3] = ["llama", "qwen2", "gemma3"];

fn gguf(tiny: &TinyModel) -> Model {
    open_gguf(Box::new(MemorySource(tiny.gguf()))).unwrap()
}

fn directory(tiny: &TinyModel) -> Model {
    open_safetensors(&open_map(&tiny.safetensors())).unwrap()
}

/// All values of a tensor.
fn values(model: &Model, info: &TensorInfo) -> Vec<f32> {
    let mut bytes = vec![0; info.bytes as usize];
    model.sources[info.source].read_at(info.offset, &mut bytes).unwrap();
    let mut out = vec![0.0; info.rows * info.cols];
    dequant::dequantize_row(info.dtype, &bytes, &mut out).unwrap();
    out
}

#[test]
fn both_worlds_agree() {
    for arch in ARCHS {
        let tiny = TinyModel::new(arch);
        let (a, b) = (gguf(&tiny), directory(&tiny));
        let style = if arch == "llama" { RopeStyle::Interleaved } else { RopeStyle::Halves };
        assert_eq!((a.spec.rope_style, b.spec.rope_style), (style, RopeStyle::Halves));
        let offset = if arch == "gemma3" { 1.0 } else { 0.0 };
        assert_eq!((a.spec.norm_offset, b.spec.norm_offset), (0.0, offset));
        let same = ModelSpec { name: a.spec.name.clone(), rope_style: style, norm_offset: 0.0, ..b.spec.clone() };
        assert_eq!(a.spec, same);
        assert_eq!(a.tensors.output.is_some(), b.tensors.output.is_some());
        assert_eq!(a.tensors.output.is_none(), tiny.tied);
        for (x, y) in a.tensors.layers.iter().zip(&b.tensors.layers) {
            assert_eq!(values(&a, &x.v), values(&b, &y.v));
            assert_eq!(values(&a, &x.down), values(&b, &y.down));
            let shifted: Vec<f32> = values(&b, &y.ffn_norm).iter().map(|w| w + offset).collect();
            let close = |(p, q): (&f32, &f32)| (p - q).abs() < 1e-6;
            assert!(values(&a, &x.ffn_norm).iter().zip(&shifted).all(close));
            // Row 2i + j of a head in GGUF's llama is row i + j * d/2 of the checkpoint.
            let (q, p) = (values(&a, &x.q), values(&b, &y.q));
            let row = |values: &[f32], r: usize| values[r * tiny.dim..(r + 1) * tiny.dim].to_vec();
            let from = if arch == "llama" { 16 + 8 + 2 } else { 16 + 5 };
            assert_eq!(row(&q, 16 + 5), row(&p, from), "{arch}: row 5 of head 1");
        }
    }
}

#[test]
fn every_type_opens_and_has_sane_weights() {
    for dtype in DType::ALL {
        let model = gguf(&TinyModel::new("llama").with_dtype(dtype));
        let info = &model.tensors.layers[1].gate;
        assert_eq!(info.dtype, dtype);
        let values = values(&model, info);
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let rms = (values.iter().map(|x| x * x).sum::<f32>() / n).sqrt();
        let expected = 1.0 / (info.cols as f32).sqrt();
        assert!((rms / expected - 1.0).abs() < 0.25, "{dtype:?}: rms {rms}, expected {expected}");
        assert!(mean.abs() < 0.2 * expected, "{dtype:?}: mean {mean}");
    }
}

#[test]
fn roles_of_their_own_type() {
    let mut tiny = TinyModel::new("qwen2").with_dtype(DType::Q4_0);
    tiny.overrides.push(("ffn_down", DType::Q8_0));
    tiny.output = DType::F16;
    let model = gguf(&tiny);
    let layer = &model.tensors.layers[0];
    assert_eq!((layer.gate.dtype, layer.down.dtype), (DType::Q4_0, DType::Q8_0));
    assert_eq!(model.tensors.output.unwrap().dtype, DType::F16);
}

#[test]
fn gemma_windows() {
    let spec = gguf(&TinyModel::new("gemma3")).spec;
    let windows: Vec<_> = spec.layers.iter().map(|l| (l.rope, l.window)).collect();
    assert_eq!(windows, [(1, Some(24)), (1, Some(24)), (0, None)]);
    assert_eq!((spec.ropes[0].base, spec.ropes[1].base), (1e6, 1e4));
    assert_eq!((spec.embed_scale, spec.attn_scale), (8.0, 0.25));
}

#[test]
fn llama_options() {
    let mut tiny = TinyModel::new("llama");
    tiny.qkv_bias = true;
    tiny.rope_factors = vec![1.0, 1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0];
    let model = gguf(&tiny);
    assert!(model.tensors.layers[0].k_bias.is_some());
    assert_eq!(model.spec.ropes[0].factors, tiny.rope_factors);
    tiny.rope_factors.pop();
    let error = open_gguf(Box::new(MemorySource(tiny.gguf()))).err().unwrap().to_string();
    assert!(error.contains("rope_freqs.weight") && error.contains("1 x 8"), "{error}");
}

/// Llama 3.1's stretched frequencies, against values computed from its published definition by hand for a head of 4 with
/// base 1e4: waves of 2 pi and 200 pi positions.
#[test]
fn llama3_scaling_from_config() {
    let tiny = TinyModel::new("llama");
    let mut files = tiny.safetensors();
    let mut config = tiny.config();
    config["rope_scaling"] = serde_json::json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1000,
    });
    files.insert("config.json".into(), config.to_string().into_bytes());
    let spec = open_safetensors(&open_map(&files)).unwrap().spec;
    // Pair i of 8 has a wave of 2 pi 10^(i/2): 6.28, 19.9, 62.8, 199, 628, 1987, ... positions; 1000 / 4 = 250 and below
    // stay, above 1000 is divided by 8, pair 4 lies between: 1000 / 628.3 = 1.5915 waves, kept by (1.5915 - 1) / 3.
    let keep = (1000.0 / 628.318_53 - 1.0) / 3.0;
    let expected = [1.0, 1.0, 1.0, 1.0, 1.0 / ((1.0 - keep) / 8.0 + keep), 8.0, 8.0, 8.0];
    for (found, expected) in spec.ropes[0].factors.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
    }
    config["rope_scaling"] = serde_json::json!({"type": "linear", "factor": 4.0});
    files.insert("config.json".into(), config.to_string().into_bytes());
    assert_eq!(open_safetensors(&open_map(&files)).unwrap().spec.ropes[0].scale, 4.0);
}

#[test]
fn rope_parameters_of_transformers_5() {
    let tiny = TinyModel::new("gemma3");
    let mut files = tiny.safetensors();
    let mut config = tiny.config();
    for gone in ["rope_theta", "rope_local_base_freq", "sliding_window_pattern"] {
        config.as_object_mut().unwrap().remove(gone);
    }
    config["layer_types"] = serde_json::json!(["full_attention", "sliding_attention", "full_attention"]);
    config["rope_parameters"] = serde_json::json!({
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    });
    files.insert("config.json".into(), config.to_string().into_bytes());
    let spec = open_safetensors(&open_map(&files)).unwrap().spec;
    assert_eq!((spec.ropes[0].base, spec.ropes[0].scale), (5e5, 8.0));
    assert_eq!((spec.ropes[1].base, spec.ropes[1].scale), (2e4, 1.0));
    assert_eq!(spec.layers.iter().map(|l| l.rope).collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn shards() {
    for arch in ARCHS {
        let tiny = TinyModel::new(arch);
        let whole = directory(&tiny);
        let files = split_in_shards(tiny.safetensors(), 3);
        let sharded = open_safetensors(&open_map(&files)).unwrap();
        assert_eq!((sharded.sources.len(), &sharded.spec), (3, &whole.spec));
        let (a, b) = (&whole.tensors.layers[1].o, &sharded.tensors.layers[1].o);
        assert_eq!(values(&whole, a), values(&sharded, b));
        let mut lost = files.clone();
        lost.remove("model-00002-of-00003.safetensors");
        let error = open_safetensors(&open_map(&lost)).err().unwrap().to_string();
        assert!(error.contains("model-00002-of-00003.safetensors"), "{error}");
        let mut elsewhere = files;
        let index = elsewhere.get_mut("model.safetensors.index.json").unwrap();
        *index = String::from_utf8(index.clone()).unwrap().replace("model-00002", "../model-00002").into_bytes();
        assert!(matches!(open_safetensors(&open_map(&elsewhere)), Err(Error::Malformed { .. })));
    }
}

#[test]
fn half_precision_directories() {
    for dtype in [DType::F16, DType::BF16] {
        let model = directory(&TinyModel::new("qwen2").with_dtype(dtype));
        assert_eq!(model.tensors.layers[0].q.dtype, dtype);
    }
}
