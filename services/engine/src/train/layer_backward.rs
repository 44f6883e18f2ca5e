//! The way back through one decoder layer: from the gradient of what it gave to that of what it took, and to those of the
//! factors in it. Frozen weights have no gradient.

use kernels::AttentionRows;

use super::layer::Activations;
use super::memory::Memory;
use super::pass::{Gradients, Pass};
use crate::model::Slot;

impl Pass<'_> {
    /// `gradient` `[rows, hidden]` goes from the output of layer `index` to its input. Without `through`, nobody below asks
    /// for the latter, and it is left undone.
    pub fn backward_layer(
        &self,
        memory: &mut Memory,
        index: usize,
        mut activations: Activations,
        gradient: &mut [f32],
        gradients: &mut Gradients<'_>,
        through: bool,
    ) {
        self.mlp_backward(memory, index, &mut activations, gradient, gradients);
        self.attention_backward(memory, index, &activations, gradient, gradients, through);
        activations.release(memory);
    }

    /// `middle + mlp(norm(middle))`; the gate and up of the activations are used up.
    fn mlp_backward(
        &self,
        memory: &mut Memory,
        index: usize,
        activations: &mut Activations,
        gradient: &mut [f32],
        gradients: &mut Gradients<'_>,
    ) {
        let (config, layer) = (self.model.config(), &self.model.weights().layers[index]);
        let Activations { middle, normed_middle, gate, up, inner, hidden, .. } = activations;
        let mut d_inner = memory.take(inner.len());
        let down = [(Slot::Down, &*gradient, &hidden[Slot::Down as usize])];
        self.project_backward(gradients, index, (inner, config.intermediate_size), down, &mut d_inner, true);
        kernels::silu_mul_backward(self.cpu, gate, up, &d_inner);
        memory.give(d_inner);
        let mut d_normed = memory.take(middle.len());
        let both =
            [(Slot::Gate, &gate[..], &hidden[Slot::Gate as usize]), (Slot::Up, &up[..], &hidden[Slot::Up as usize])];
        self.project_backward(gradients, index, (normed_middle, config.hidden_size), both, &mut d_normed, true);
        let norm = &layer.post_attention_norm;
        kernels::rms_norm_backward(self.cpu, middle, norm, config.rms_norm_eps, &d_normed, gradient);
        memory.give(d_normed);
    }

    /// `input + attention(norm(input))`
    fn attention_backward(
        &self,
        memory: &mut Memory,
        index: usize,
        activations: &Activations,
        gradient: &mut [f32],
        gradients: &mut Gradients<'_>,
        through: bool,
    ) {
        let (config, layer) = (self.model.config(), &self.model.weights().layers[index]);
        let Activations { input, normed, raw, q, k, v, mixed, hidden, .. } = activations;
        let eps = config.rms_norm_eps;
        let mut d_mixed = memory.take(mixed.len());
        let o = [(Slot::O, &*gradient, &hidden[Slot::O as usize])];
        self.project_backward(gradients, index, (mixed, config.heads * config.head_dim), o, &mut d_mixed, true);

        let [mut dq, mut dk, mut dv] = [q, k, v].map(|rows| memory.take(rows.len()));
        let rows = AttentionRows { q, k, v, out: mixed, d_out: &d_mixed };
        let (shape, sequences) = (config.attention_shape(index), &self.batch.sequences);
        kernels::attention_backward(self.cpu, &shape, sequences, rows, &mut dq, &mut dk, &mut dv);
        memory.give(d_mixed);
        let rotary = &self.batch.rotary[config.attention[index].rope];
        kernels::rotate_backward(self.cpu, &mut dq, config.heads, rotary);
        kernels::rotate_backward(self.cpu, &mut dk, config.kv_heads, rotary);
        if let (Some([q_norm, k_norm]), Some([q_raw, k_raw])) = (&layer.head_norms, raw) {
            kernels::rms_norm_backward_in_place(self.cpu, q_raw, q_norm, eps, &mut dq);
            kernels::rms_norm_backward_in_place(self.cpu, k_raw, k_norm, eps, &mut dk);
        }
        let mut d_normed = memory.take(input.len());
        let all = [
            (Slot::Q, &dq[..], &hidden[Slot::Q as usize]),
            (Slot::K, &dk[..], &hidden[Slot::K as usize]),
            (Slot::V, &dv[..], &hidden[Slot::V as usize]),
        ];
        self.project_backward(gradients, index, (normed, config.hidden_size), all, &mut d_normed, through);
        if through {
            kernels::rms_norm_backward(self.cpu, input, &layer.input_norm, eps, &d_normed, gradient);
        }
        [dq, dk, dv, d_normed].into_iter().for_each(|buffer| memory.give(buffer));
    }
}
