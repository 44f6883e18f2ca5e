//! What training needs besides the operations of serving: gradients that pass through each operation, those of the two
//! factors of a low-rank change, and the step of the optimiser. Analytic, in f32, on f32 activations; what drives them is
//! not here.
//!
//! Nothing here has a gradient of a frozen weight. A gradient with respect to the input of a layer is a product with the
//! transposed matrix ([`crate::Matrix::transposed`], [`crate::linear_add`]); that with respect to the input of a low-rank
//! change is a low-rank change with the transposed factors ([`crate::grouped_loras_with_hidden`]).

mod activation;
mod attention;
mod cross_entropy;
mod norm;
mod optimiser;
mod outer;
mod rows;

pub use activation::silu_mul_backward;
pub use attention::{AttentionRows, attention_backward};
pub use cross_entropy::cross_entropy_backward;
pub use norm::{rms_norm_backward, rms_norm_backward_in_place};
pub use optimiser::{AdamW, adamw, sum_of_squares};
pub use outer::{OuterSum, outer_sums};
