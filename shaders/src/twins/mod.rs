//! CPU twins: each kernel again in plain Rust, taking the same params and buffers, written for clarity and in the most
//! obvious order. Kernels are tested against them, and a whole recording can run on them.

mod adapter;
mod attention;
mod decode;
mod encoder;
mod matmul;
mod pages;
mod pointwise;
mod roofline;
mod sampling;

use std::cell::Cell;

use crate::{Step, Variant};

pub use adapter::{adapter, matvec_adapted};
pub use attention::{attn_merge, attn_share, attn_split, attn_token, kv_quant, rope_kv};
pub use decode::decode_block;
pub use encoder::{attn_dense, gelu_erf, layer_norm};
pub use matmul::{embed, matmul};
pub use pages::{Plane, hadamard};
pub use pointwise::{gather_rows, glu, rms_norm};
pub use roofline::{roof_copy, roof_dot8, roof_fma};
pub use sampling::{row_nll, sample};

/// A bound buffer as 32-bit words. Bindings may overlap, as on a device.
#[derive(Clone, Copy)]
pub struct Words<'a>(pub &'a [Cell<u32>]);

impl Words<'_> {
    /// Word `i`.
    pub fn u(&self, i: usize) -> u32 {
        self.0[i].get()
    }

    /// Word `i` as f32.
    pub fn f(&self, i: usize) -> f32 {
        f32::from_bits(self.u(i))
    }

    /// Set word `i`.
    pub fn set_u(&self, i: usize, v: u32) {
        self.0[i].set(v);
    }

    /// Set word `i` to an f32.
    pub fn set_f(&self, i: usize, v: f32) {
        self.set_u(i, v.to_bits());
    }

    /// The f16 at half-word `i`.
    pub fn h(&self, i: usize) -> f32 {
        half::f16::from_bits((self.u(i / 2) >> (16 * (i % 2))) as u16).to_f32()
    }

    /// Set the f16 at half-word `i`.
    pub fn set_h(&self, i: usize, v: f32) {
        let shift = 16 * (i % 2);
        let bits = u32::from(half::f16::from_f32(v).to_bits()) << shift;
        self.set_u(i / 2, self.u(i / 2) & !(0xffff << shift) | bits);
    }
}

/// A dispatch: the variant with its uniforms and its storage bindings in order.
pub struct Call<'a> {
    /// The variant; its twin is named after its kernel.
    pub variant: &'static Variant,
    /// Uniform 0.
    pub step: Step,
    /// Uniform 1, as bytes.
    pub params: &'a [u8],
    /// Bindings 2 and up.
    pub args: &'a [Words<'a>],
}

/// Run the twin of a dispatch.
///
/// # Panics
/// If the bindings do not fit the kernel: that is an error of the program, as it is on a device with validation.
pub fn run(call: &Call<'_>) {
    let (s, a) = (&call.step, call.args);
    assert_eq!(a.len() + 2, call.variant.bindings.len(), "{}: number of bindings", call.variant.name);
    macro_rules! params {
        () => {
            &bytemuck::pod_read_unaligned(call.params)
        };
    }
    let format = || call.variant.format.expect("a kernel over weights has a format");
    match call.variant.kernel {
        "embed" => embed(format(), s, params!(), a[0], a[1], a[3]),
        "gather_rows" => gather_rows(s, params!(), a[0], a[1], a[2]),
        "rms_norm" => rms_norm(s, params!(), a[0], a[1], a[2]),
        "matmul" | "matvec" | "matvec_wide" | "matmul_tile" | "matmul_i8" | "matvec_i8" | "matmul_coop" => {
            matmul(format(), s, params!(), a[0], a[1], a[3], a[4], a[5])
        }
        "matvec_adapted" => matvec_adapted(format(), s, params!(), a[0], a[1], a[3], a[4], a[5], a[6], a[7]),
        "glu" => glu(s, params!(), a[0], a[1]),
        "adapter" => adapter(s, params!(), a[0], a[1], a[2], a[3]),
        "layer_norm" => layer_norm(s, params!(), a[0], a[1], a[2]),
        "gelu_erf" => gelu_erf(s, params!(), a[0]),
        "attn_dense" => attn_dense(s, params!(), a[0], a[1], a[2]),
        "rope_kv" => rope_kv(s, params!(), a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]),
        "attn_split" => attn_split(s, params!(), a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]),
        "attn_token" => attn_token(s, params!(), a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]),
        "kv_quant" => kv_quant(s, params!(), a[0], a[1]),
        "attn_merge" => attn_merge(s, params!(), a[0], a[1], a[2], a[3]),
        "attn_share" => attn_share(s, params!(), a[0], a[1], a[2], a[3]),
        "row_nll" => row_nll(s, params!(), a[0], a[1], a[2]),
        "sample" => sample(s, params!(), a[0], a[1], a[2], a[3], a[4], a[5], a[6]),
        "roof_copy" => roof_copy(params!(), a[0], a[1]),
        "roof_fma" => roof_fma(call.variant.f16, params!(), a[0], a[1]),
        "roof_dot8" => roof_dot8(params!(), a[0], a[1]),
        other => unreachable!("kernel {other} has no twin"),
    }
}
