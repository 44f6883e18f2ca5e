//! Where the factors of an adapter in training lie in memory, and the forms in which a pass reads them.
//!
//! All factors are one run of f32, as are their moments and gradient: of each module A, then B transposed. Wide rows make
//! wide sums: B itself has rows of the rank.

use std::ops::Range;

use adapters::{ModuleKind, ModuleOutline};
use kernels::{Cpu, Lora, Matrix, Storage};

use crate::lora::parse_path;
use crate::model::Slot;

/// The factors of one module.
pub(super) struct Site {
    pub place: Place,
    /// Index of its outline.
    pub outline: usize,
    pub rank: usize,
    pub scale: f32,
    pub inputs: usize,
    pub outputs: usize,
    /// A `[rank, inputs]`; of an embedding, transposed: `[vocab, rank]`.
    pub a: Range<usize>,
    /// B transposed: `[rank, outputs]`.
    pub b: Range<usize>,
}

/// What a site changes, in the order in which the forward comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Embed,
    Linear(usize, Slot),
    Head,
}

/// All sites of an adapter, in the order of their places, which is that of their ranges.
pub(super) struct Sites {
    pub all: Vec<Site>,
    embed: Option<usize>,
    /// By layer and slot.
    linears: Vec<[Option<usize>; 7]>,
    head: Option<usize>,
}

impl Sites {
    /// Of modules of a model with `layers` layers.
    pub fn new(outlines: &[ModuleOutline], layers: usize) -> Sites {
        let mut placed: Vec<(Place, usize)> =
            outlines.iter().enumerate().map(|(index, outline)| (place(&outline.module), index)).collect();
        placed.sort_by_key(|(place, _)| match place {
            Place::Embed => (0, 0, 0),
            Place::Linear(layer, slot) => (1, *layer, *slot as usize),
            Place::Head => (2, 0, 0),
        });
        let mut sites = Sites { all: Vec::new(), embed: None, linears: vec![[None; 7]; layers], head: None };
        let mut end = 0;
        let mut range = |len: usize| {
            end += len;
            end - len..end
        };
        for (index, (place, outline)) in placed.into_iter().enumerate() {
            let ModuleOutline { kind, rank, scale, .. } = outlines[outline];
            let (inputs, outputs) = match kind {
                ModuleKind::Linear { in_features, out_features, .. } => (in_features, out_features),
                ModuleKind::Embedding { vocab, dim } => (vocab, dim),
                ModuleKind::Norm { .. } => unreachable!("an outline has no norms"),
            };
            match place {
                Place::Embed => sites.embed = Some(index),
                Place::Linear(layer, slot) => sites.linears[layer][slot as usize] = Some(index),
                Place::Head => sites.head = Some(index),
            }
            let (a, b) = (range(rank * inputs), range(rank * outputs));
            sites.all.push(Site { place, outline, rank, scale: scale as f32, inputs, outputs, a, b });
        }
        sites
    }

    /// Numbers of all factors.
    pub fn len(&self) -> usize {
        self.all.last().map_or(0, |site| site.b.end)
    }

    pub fn embed(&self) -> Option<&Site> {
        self.embed.map(|index| &self.all[index])
    }

    /// The index of a linear layer's site.
    pub fn linear(&self, layer: usize, slot: Slot) -> Option<usize> {
        self.linears[layer][slot as usize]
    }

    pub fn head(&self) -> Option<usize> {
        self.head
    }

    /// The first layer with a change; none where only the output layer has one.
    pub fn first_layer(&self) -> Option<usize> {
        if self.embed.is_some() {
            Some(0)
        } else {
            self.linears.iter().position(|layer| layer.iter().any(Option::is_some))
        }
    }
}

fn place(module: &str) -> Place {
    match module {
        adapters::base::EMBED_TOKENS => Place::Embed,
        adapters::base::LM_HEAD => Place::Head,
        path => {
            let (layer, slot) = parse_path(path).expect("an outline names modules of a base that this model is");
            Place::Linear(layer, slot)
        }
    }
}

/// The factors of all sites, as products read them. Made anew after each step.
pub(super) struct Packed {
    /// By site; the embedding has none.
    linears: Vec<Option<PackedLinear>>,
    /// B of the embedding, transposed: `[rank, hidden]`.
    pub embed_b: Option<Matrix>,
}

/// `y += s · B (A x)`, and the same with transposed factors, which gives `dx += s · Aᵀ (Bᵀ dy)`.
pub(super) struct PackedLinear {
    pub forward: Lora,
    pub backward: Lora,
}

impl Packed {
    pub fn new(cpu: &Cpu, sites: &Sites, values: &[f32]) -> Packed {
        let mut linears: Vec<Option<PackedLinear>> = sites.all.iter().map(|_| None).collect();
        // Inside of this region, each matrix is packed by one thread.
        cpu.each_chunk(&mut linears, 1, |index, packed| {
            let site = &sites.all[index];
            packed[0] = (site.place != Place::Embed).then(|| PackedLinear::new(cpu, site, values));
        });
        let embed_b = sites
            .embed()
            .map(|site| Matrix::from_values(cpu, site.rank, site.outputs, Storage::F32, &values[site.b.clone()]));
        Packed { linears, embed_b }
    }

    pub fn linear(&self, site: usize) -> &PackedLinear {
        self.linears[site].as_ref().expect("no place but the embedding is without one")
    }
}

impl PackedLinear {
    fn new(cpu: &Cpu, site: &Site, values: &[f32]) -> PackedLinear {
        let (a, b) = (&values[site.a.clone()], &values[site.b.clone()]);
        let rows = |values, width| Matrix::from_values(cpu, site.rank, width, Storage::F32, values);
        let columns = |values: &[f32], width: usize| {
            Matrix::from_rows(cpu, width, site.rank, Storage::F32, |column, out| {
                for (out, value) in out.iter_mut().zip(values[column..].iter().step_by(width)) {
                    *out = *value;
                }
            })
        };
        PackedLinear {
            forward: Lora::from_parts(rows(a, site.inputs), columns(b, site.outputs), site.scale),
            backward: Lora::from_parts(rows(b, site.outputs), columns(a, site.inputs), site.scale),
        }
    }
}
