//! Linear layers that read the same rows, with what each part's adapter adds to them: forward, and back.

use std::borrow::Cow;
use std::ops::Range;

use kernels::{Forms, Input, Lora, LoraGroup, LoraSite, OuterSum};

use super::factors::{PackedLinear, Site};
use super::pass::{Gradients, Pass, Tenant};
use crate::model::{Layer, Slot};

/// `h = A x` of one linear layer: the part, and its rows `[rows, rank]`.
pub(super) type Hidden = Vec<(usize, Vec<f32>)>;

/// A low-rank change that acts on some rows of an input.
pub(super) struct Change<'a> {
    pub part: usize,
    /// Index of the site.
    pub site: usize,
    pub rows: Cow<'a, [usize]>,
    pub packed: &'a PackedLinear,
}

/// What the gradients of a site's factors are made of: rows of one part, or of all.
pub(super) struct Factors<'a> {
    pub site: &'a Site,
    /// `A x` of the part, `[rows, rank]`.
    pub h: &'a [f32],
    /// `Bᵀ dy` of the part, `[rows, rank]`.
    pub dh: &'a [f32],
    /// Of all parts, `[rows, outputs]`.
    pub dy: &'a [f32],
}

impl Pass<'_> {
    /// The products of one input with some linear layers of a decoder layer, and what each part's change adds, in the
    /// order of [`crate::model::Model::forward`].
    pub fn project<const N: usize>(
        &self,
        index: usize,
        layer: &Layer,
        x: &Input<'_>,
        slots: [(Slot, &mut [f32]); N],
    ) -> [Hidden; N] {
        let mut products = slots.map(|(slot, y)| (layer.linear(slot), slot, y));
        let mut dense: Vec<_> = products.iter_mut().map(|(linear, _, y)| (&linear.weight, &mut **y)).collect();
        kernels::linears(self.cpu, x, &mut dense);
        let changes: Vec<Vec<Change<'_>>> =
            products.iter().map(|(_, slot, _)| self.changes(|tenant| tenant.sites.linear(index, *slot))).collect();
        let groups: Vec<Vec<LoraGroup<'_>>> = changes.iter().map(|changes| groups(changes, forward)).collect();
        let sites = products.iter_mut().zip(&groups);
        let mut sites: Vec<LoraSite<'_>> =
            sites.map(|((linear, _, y), groups)| LoraSite { groups, outputs: linear.weight.outputs(), y }).collect();
        let mut hidden = kernels::grouped_loras_with_hidden(self.cpu, x, &mut sites).into_iter();
        for (linear, _, y) in products {
            if let Some(bias) = &linear.bias {
                kernels::add_bias_rows(self.cpu, y, bias);
            }
        }
        std::array::from_fn(|n| changes[n].iter().map(|change| change.part).zip(hidden.by_ref()).collect())
    }

    /// From the gradients of what [`Pass::project`] wrote to that of the rows `x` `[rows, width]` it read, which replaces
    /// `dx`, and to those of the factors. Without `through`, `dx` is left with no meaning: nobody below asks for it.
    pub fn project_backward<const N: usize>(
        &self,
        gradients: &mut Gradients<'_>,
        index: usize,
        (x, width): (&[f32], usize),
        slots: [(Slot, &[f32], &Hidden); N],
        dx: &mut [f32],
        through: bool,
    ) {
        let mut back: Vec<Hidden> = Vec::with_capacity(N);
        for (n, (slot, dy, _)) in slots.iter().enumerate() {
            let weight = self.transposed.linear(index, *slot);
            let dy = Input::new(self.cpu, dy, weight.inputs(), Forms::F32);
            match (through, n) {
                (true, 0) => kernels::linear(self.cpu, &dy, weight, dx),
                (true, _) => kernels::linear_add(self.cpu, &dy, weight, dx),
                (false, _) => {}
            }
            back.push(self.changes_backward(&self.changes(|tenant| tenant.sites.linear(index, *slot)), &dy, width, dx));
        }
        for (part, tenant) in self.tenants.iter().enumerate() {
            let mut of_sites = Vec::with_capacity(N);
            for ((slot, dy, hidden), back) in slots.iter().zip(&back) {
                let (Some(h), Some(dh)) = (of_part(hidden, part), of_part(back, part)) else { continue };
                let site = tenant.sites.linear(index, *slot).map(|site| &tenant.sites.all[site]);
                of_sites.extend(site.map(|site| Factors { site, h, dh, dy }));
            }
            self.factors_backward(tenant.rows.clone(), x, &of_sites, gradients[part]);
        }
    }

    /// Adds what some changes add to one output `y` `[rows, outputs]`, and gives `A x` of each.
    pub fn add_changes(&self, changes: &[Change<'_>], x: &Input<'_>, outputs: usize, y: &mut [f32]) -> Hidden {
        self.apply(changes, forward, x, outputs, y)
    }

    /// Adds the way back through some changes of one output to `dx` `[rows, width]`, and gives `Bᵀ dy` of each.
    pub fn changes_backward(&self, changes: &[Change<'_>], dy: &Input<'_>, width: usize, dx: &mut [f32]) -> Hidden {
        self.apply(changes, |packed| &packed.backward, dy, width, dx)
    }

    fn apply(
        &self,
        changes: &[Change<'_>],
        lora: fn(&PackedLinear) -> &Lora,
        x: &Input<'_>,
        outputs: usize,
        y: &mut [f32],
    ) -> Hidden {
        let groups = groups(changes, lora);
        let hidden = kernels::grouped_loras_with_hidden(self.cpu, x, &mut [LoraSite { groups: &groups, outputs, y }]);
        changes.iter().map(|change| change.part).zip(hidden).collect()
    }

    /// Adds the gradients of the factors of some sites that read the same `x`, in the order of the sites. `rows` are those
    /// of the part, among all rows of `x` and of each `dy`; `gradient` is that of the part.
    pub fn factors_backward(&self, rows: Range<usize>, x: &[f32], sites: &[Factors<'_>], gradient: &mut [f32]) {
        let mut sums = Vec::with_capacity(2 * sites.len());
        let (mut rest, mut taken) = (gradient, 0);
        for Factors { site, h, dh, dy } in sites {
            let (_, from) = rest.split_at_mut(site.a.start - taken);
            let (a, from) = from.split_at_mut(site.a.len());
            let (b, from) = from.split_at_mut(site.b.len());
            (rest, taken) = (from, site.b.end);
            let x = &x[rows.start * site.inputs..rows.end * site.inputs];
            let dy = &dy[rows.start * site.outputs..rows.end * site.outputs];
            sums.push(OuterSum { left: dh, right: x, rows: rows.len(), scale: site.scale, out: a });
            sums.push(OuterSum { left: h, right: dy, rows: rows.len(), scale: site.scale, out: b });
        }
        kernels::outer_sums(self.cpu, &mut sums);
    }

    /// The changes at some place, each of all rows of its part.
    pub fn changes(&self, site: impl Fn(&Tenant<'_>) -> Option<usize>) -> Vec<Change<'_>> {
        let tenants = self.tenants.iter().enumerate();
        tenants
            .filter_map(|(part, tenant)| {
                let site = site(tenant)?;
                Some(Change { part, site, rows: Cow::Borrowed(tenant.list), packed: tenant.packed.linear(site) })
            })
            .collect()
    }
}

fn forward(packed: &PackedLinear) -> &Lora {
    &packed.forward
}

fn groups<'a>(changes: &'a [Change<'_>], lora: fn(&PackedLinear) -> &Lora) -> Vec<LoraGroup<'a>> {
    changes.iter().map(|change| LoraGroup { rows: &change.rows, lora: lora(change.packed) }).collect()
}

fn of_part(hidden: &Hidden, part: usize) -> Option<&[f32]> {
    hidden.iter().find(|(of, _)| *of == part).map(|(_, rows)| &rows[..])
}
