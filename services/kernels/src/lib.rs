//! CPU operations of a decoder: linear layers over f32, bf16 or int8 weights, norms, rotary positions, paged attention,
//! grouped LoRA, and the gradients of all of them. Activations are row-major f32.
//!
//! One promise shapes every operation: **a row's result does not depend on the other rows**, on how work is cut into
//! tiles, or on the number of threads. Sums run in one fixed order for each instruction set, so the same request gives the
//! same bits alone and in any batch.
//!
//! It knows no model, no adapter format and no scheduler. It is the only crate with `unsafe`; its interface is safe.
//!
//! Sizes that do not fit together are errors of the caller and panic.

mod activation;
mod affine;
mod attention;
mod backward;
mod buffer;
pub mod ceilings;
mod cpu;
mod expand;
mod input;
mod isa;
mod kv_blocks;
mod linear;
mod lora;
mod matrix;
mod norm;
mod reduce;
mod residual;
mod rope;
mod sampling;
mod softmax;
mod split;
mod system;
mod vectorized;

pub use activation::silu_mul;
pub use affine::{add_bias, scale_row};
pub use attention::{AttentionShape, AttentionSlice, paged_attention};
pub use backward::{
    AdamW, AttentionRows, OuterSum, adamw, attention_backward, cross_entropy_backward, outer_sums, rms_norm_backward,
    rms_norm_backward_in_place, silu_mul_backward, sum_of_squares,
};
pub use buffer::{ALIGNMENT, Buffer};
pub use cpu::{Cpu, CpuConfig};
pub use expand::expand;
pub use input::{Forms, Input};
pub use isa::Isa;
pub use kv_blocks::{BLOCK_TOKENS, BlockId, KvBlocks, KvStorage};
pub use linear::{linear, linear_add, linears};
pub use lora::{Lora, LoraGroup, LoraSite, grouped_loras, grouped_loras_with_hidden};
pub use matrix::{Matrix, PackedError, Storage};
pub use norm::{add_rms_norm, rms_norm, rms_norm_in_place};
pub use residual::{add, add_bias_rows};
pub use rope::{RotaryTable, rotate, rotate_backward};
pub use sampling::{all_finite, argmax, top_k};
pub use softmax::{exp_weights, log_sum_exp};
pub use system::lower_thread_priority;

/// Lanes of every sum: one AVX-512 register of f32, two AVX2 registers.
const LANES: usize = 16;

#[cfg(test)]
mod reference;
