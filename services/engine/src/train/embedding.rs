//! The embedding of all rows, with what adapters change of it: forward, and the gradients of their factors.

use kernels::{Forms, Input, OuterSum};

use super::memory::Memory;
use super::pass::{Gradients, Pass};

impl Pass<'_> {
    /// `E[token] + s · B (Aᵀ[token])`, `[rows, hidden]`.
    pub fn embed(&self, memory: &mut Memory) -> Vec<f32> {
        let (width, tokens) = (self.model.config().hidden_size, &self.batch.tokens);
        let table = &self.model.weights().embed;
        let mut hidden = memory.take(tokens.len() * width);
        self.cpu.each_chunk(&mut hidden, width, |r, row| table.read_row(tokens[r] as usize, row));
        for tenant in &self.tenants {
            let Some(site) = tenant.sites.embed() else { continue };
            let (a, b) = (&tenant.values[site.a.clone()], &tenant.values[site.b.clone()]);
            let rows = &mut hidden[tenant.rows.start * width..tenant.rows.end * width];
            let tokens = &tokens[tenant.rows.clone()];
            self.cpu.each_chunk(rows, width, |r, row| {
                kernels::expand(&a[tokens[r] as usize * site.rank..][..site.rank], b, site.scale, row);
            });
        }
        hidden
    }

    /// Adds the gradients of the embedding's factors, from that of its rows `[rows, hidden]`.
    pub fn embed_backward(&self, gradient: &[f32], gradients: &mut Gradients<'_>) {
        let width = self.model.config().hidden_size;
        for (tenant, gradients) in self.tenants.iter().zip(gradients) {
            let (Some(site), Some(b)) = (tenant.sites.embed(), &tenant.packed.embed_b) else { continue };
            let (rank, tokens) = (site.rank, &self.batch.tokens[tenant.rows.clone()]);
            let dy = &gradient[tenant.rows.start * width..tenant.rows.end * width];
            let mut dh = vec![0.0; tokens.len() * rank];
            kernels::linear(self.cpu, &Input::new(self.cpu, dy, width, Forms::F32), b, &mut dh);
            let a = &tenant.values[site.a.clone()];
            let h: Vec<f32> = tokens.iter().flat_map(|token| &a[*token as usize * rank..][..rank]).copied().collect();
            let da = &mut gradients[site.a.clone()];
            for (token, dh) in tokens.iter().zip(dh.chunks_exact(rank)) {
                let row = &mut da[*token as usize * rank..][..rank];
                row.iter_mut().zip(dh).for_each(|(sum, dh)| *sum = site.scale.mul_add(*dh, *sum));
            }
            let out = &mut gradients[site.b.clone()];
            let sum = OuterSum { left: &h, right: dy, rows: tokens.len(), scale: site.scale, out };
            kernels::outer_sums(self.cpu, &mut [sum]);
        }
    }
}
