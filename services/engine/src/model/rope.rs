//! Rotary frequencies of every scaling that the supported families use: default, linear, dynamic (NTK), llama3, yarn.
//!
//! The formulas and the rounding to f32 follow `modeling_rope_utils.py` of transformers 5 (5.23), which reads the
//! configs of transformers 4 as well. Frequencies only; the turning itself is `kernels::rotate`.
//!
//! Dynamic scaling depends on a sequence's length. transformers recomputes the frequencies whenever the cache grows, so
//! old keys keep older frequencies. Here a sequence has one length that fixes them for all its steps (its prompt's;
//! for scoring its whole length, where both agree): chunking, preemption and prefix sharing then change nothing.

use std::f64::consts::PI;

use super::config::Fields;

/// The rotary frequencies of some layers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    theta: f64,
    dim: usize,
    /// `max_position_embeddings`
    positions: usize,
    scaling: Scaling,
}

#[derive(Clone, Debug, PartialEq)]
enum Scaling {
    Default,
    Linear { factor: f64 },
    Dynamic { factor: f64 },
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
    Yarn { factor: f64, attention_factor: f64, beta_fast: f64, beta_slow: f64, truncate: bool, original: f64 },
}

impl Rope {
    /// From `rope_scaling` or `rope_parameters`, whole or by layer type: the distinct ropes, and for each layer which.
    pub fn from_fields(
        fields: &Fields<'_>,
        layer_types: &[String],
        dim: usize,
        positions: usize,
    ) -> Result<(Vec<Rope>, Vec<usize>), String> {
        let theta = fields.number("rope_theta")?.unwrap_or(10_000.0);
        let outer_original = fields.number("original_max_position_embeddings")?;
        let parse = |parameters: &Fields<'_>| {
            Rope::parse(parameters, theta, dim, positions, outer_original)
                .map_err(|fault| format!("RoPE parameters: {fault}"))
        };
        let key = if fields.has_value("rope_scaling") { "rope_scaling" } else { "rope_parameters" };
        let Some(parameters) = fields.object(key)? else {
            let rope = Rope { theta, dim, positions, scaling: Scaling::Default };
            return Ok((vec![rope], vec![0; layer_types.len()]));
        };
        if !parameters.keys().any(|key| layer_types.iter().any(|kind| kind == key)) {
            return Ok((vec![parse(&parameters)?], vec![0; layer_types.len()]));
        }
        let mut ropes = Vec::new();
        let mut rope_of = Vec::new();
        for kind in layer_types {
            let own = parameters.object(kind)?.ok_or_else(|| format!("{key} has no entry for {kind} layers"))?;
            let rope = parse(&own)?;
            let known = ropes.iter().position(|known| *known == rope);
            rope_of.push(known.unwrap_or(ropes.len()));
            if known.is_none() {
                ropes.push(rope);
            }
        }
        Ok((ropes, rope_of))
    }

    fn parse(
        fields: &Fields<'_>,
        outer_theta: f64,
        dim: usize,
        positions: usize,
        outer_original: Option<f64>,
    ) -> Result<Rope, String> {
        let theta = fields.number("rope_theta")?.unwrap_or(outer_theta);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(format!("rope_theta is {theta}"));
        }
        if fields.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err("partial_rotary_factor other than 1 is not supported".into());
        }
        let kind = fields.text("rope_type")?.or(fields.text("type")?).unwrap_or("default");
        let required = |key: &str| match fields.number(key)? {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(format!("{key} is {value}")),
            None => Err(format!("{key} is missing")),
        };
        let original = || -> Result<f64, String> {
            Ok(outer_original.or(fields.number("original_max_position_embeddings")?).unwrap_or(positions as f64))
        };
        let scaling = match kind {
            "default" => Scaling::Default,
            "linear" => Scaling::Linear { factor: required("factor")? },
            "dynamic" if dim <= 2 => return Err("dynamic scaling needs a head_dim above 2".into()),
            "dynamic" => Scaling::Dynamic { factor: required("factor")? },
            "llama3" => {
                let (low, high) = (required("low_freq_factor")?, required("high_freq_factor")?);
                if high <= low {
                    return Err(format!("high_freq_factor {high} is not above low_freq_factor {low}"));
                }
                Scaling::Llama3 { factor: required("factor")?, low, high, original: original()? }
            }
            "yarn" => yarn(fields, original()?, positions)?,
            other => return Err(format!("the type {other:?} is not supported; linear, dynamic, llama3 and yarn are")),
        };
        Ok(Rope { theta, dim, positions, scaling })
    }

    /// Positions that the model is made for.
    pub fn context_length(&self) -> usize {
        let stretched = match self.scaling {
            Scaling::Default | Scaling::Llama3 { .. } => 0.0,
            Scaling::Linear { factor } | Scaling::Dynamic { factor } => factor * self.positions as f64,
            Scaling::Yarn { factor, original, .. } => factor * original,
        };
        self.positions.max(stretched as usize)
    }

    /// The length on which the frequencies of a sequence depend: 0 for all but a long sequence of a dynamic model.
    pub fn key(&self, length: usize) -> usize {
        let depends = matches!(self.scaling, Scaling::Dynamic { .. }) && length > self.positions;
        if depends { length } else { 0 }
    }

    /// `[dim / 2]` angles per position, and the factor of cosine and sine.
    pub fn frequencies(&self, length: usize) -> (Vec<f32>, f32) {
        match &self.scaling {
            Scaling::Default => (self.plain(self.theta), 1.0),
            Scaling::Linear { factor } => {
                (self.plain(self.theta).iter().map(|inv| inv / *factor as f32).collect(), 1.0)
            }
            Scaling::Dynamic { factor } => {
                // The reference takes the length as a tensor and so rounds every step to f32; long sequences show it.
                let (length, positions) = (length.max(self.positions) as f32, self.positions as f32);
                let stretch = (*factor as f32 * length) / positions - (*factor - 1.0) as f32;
                let dim = self.dim as f64;
                let power = f64::from(stretch).powf(dim / (dim - 2.0)) as f32;
                (self.plain(f64::from(self.theta as f32 * power)), 1.0)
            }
            Scaling::Llama3 { factor, low, high, original } => {
                let scale = |inv: f32| llama3(inv, *factor as f32, *low as f32, *high as f32, *original as f32);
                (self.plain(self.theta).into_iter().map(scale).collect(), 1.0)
            }
            Scaling::Yarn { factor, attention_factor, beta_fast, beta_slow, truncate, original } => {
                let (low, high) = self.correction_range(*beta_fast, *beta_slow, *original, *truncate);
                let ramp = |i: usize| ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
                let blend = |(i, power): (usize, f32)| {
                    let keep = 1.0 - ramp(i);
                    1.0 / (*factor as f32 * power) * (1.0 - keep) + 1.0 / power * keep
                };
                (self.powers(self.theta).enumerate().map(blend).collect(), *attention_factor as f32)
            }
        }
    }

    fn plain(&self, theta: f64) -> Vec<f32> {
        self.powers(theta).map(|power| 1.0 / power).collect()
    }

    /// θ^(2i/dim), rounded as f32 tensors are.
    fn powers(&self, theta: f64) -> impl Iterator<Item = f32> + use<> {
        let dim = self.dim as f32;
        let theta = f64::from(theta as f32);
        (0..self.dim / 2).map(move |i| theta.powf(f64::from((2 * i) as f32 / dim)) as f32)
    }

    /// First and last dimension of yarn's ramp.
    fn correction_range(&self, beta_fast: f64, beta_slow: f64, original: f64, truncate: bool) -> (f32, f32) {
        let dim = self.dim as f64;
        let at = |rotations: f64| dim * (original / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
        let (mut low, mut high) = (at(beta_fast), at(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001; // as the reference does, against a division by zero
        }
        (low as f32, high as f32)
    }
}

fn llama3(inv: f32, factor: f32, low: f32, high: f32, original: f32) -> f32 {
    let wave_length = (2.0 * PI) as f32 / inv;
    if wave_length > original / low {
        inv / factor
    } else if wave_length < original / high {
        inv
    } else {
        let smooth = (original / wave_length - low) / (high - low);
        (1.0 - smooth) * inv / factor + smooth * inv
    }
}

fn yarn(fields: &Fields<'_>, original: f64, positions: usize) -> Result<Scaling, String> {
    let factor = match fields.number("factor")? {
        Some(factor) => factor,
        None => positions as f64 / original,
    };
    if !(factor.is_finite() && factor > 0.0 && original > 0.0) {
        return Err(format!("factor is {factor}"));
    }
    let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    let non_zero = |key: &str| fields.number(key).map(|value| value.filter(|value| *value != 0.0));
    let attention_factor = match (fields.number("attention_factor")?, non_zero("mscale")?, non_zero("mscale_all_dim")?)
    {
        (Some(attention_factor), ..) => attention_factor,
        (None, Some(mscale), Some(all_dim)) => scale(mscale) / scale(all_dim),
        (None, ..) => scale(1.0),
    };
    Ok(Scaling::Yarn {
        factor,
        attention_factor,
        beta_fast: non_zero("beta_fast")?.unwrap_or(32.0),
        beta_slow: non_zero("beta_slow")?.unwrap_or(1.0),
        truncate: fields.flag("truncate")?.unwrap_or(true),
        original,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(parameters: &str) -> Rope {
        let fields = Fields::parse(parameters.as_bytes()).unwrap();
        Rope::parse(&fields, 10_000.0, 8, 32, None).unwrap()
    }

    #[test]
    fn only_a_long_sequence_of_a_dynamic_model_has_frequencies_of_its_own() {
        let dynamic = rope(r#"{"rope_type": "dynamic", "factor": 2.0}"#);
        let plain = rope("{}");
        assert_eq!([0, 1, 32, 33].map(|length| dynamic.key(length)), [0, 0, 0, 33]);
        assert_eq!([0, 1, 32, 33].map(|length| plain.key(length)), [0; 4]);
        assert_eq!(dynamic.frequencies(32), plain.frequencies(0));
        let (long, _) = dynamic.frequencies(64);
        // θ' = θ · (2 · 64 / 32 − 1)^(8/6), by hand for the second pair
        let want = (10_000.0 * 3f64.powf(8.0 / 6.0)).powf(-0.25);
        assert!((f64::from(long[1]) / want - 1.0).abs() < 1e-6);
        assert_eq!((dynamic.context_length(), plain.context_length()), (64, 32));
    }

    #[test]
    fn yarn_scales_slow_turns_keeps_fast_ones_and_raises_the_factor() {
        let yarn = rope(r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}"#);
        let (got, factor) = yarn.frequencies(0);
        let (plain, _) = rope("{}").frequencies(0);
        assert!((f64::from(factor) - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-6);
        assert_eq!(got[0], plain[0]);
        assert!((got[3] / (plain[3] / 4.0) - 1.0).abs() < 1e-6);
        assert_eq!(yarn.context_length(), 16_384);
        let stated = r#"{"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5}"#;
        assert_eq!(rope(stated).frequencies(0).1, 1.5);
    }
}
