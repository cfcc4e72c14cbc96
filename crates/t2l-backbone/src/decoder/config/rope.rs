//! RoPE as config.json describes it: base frequencies, their scaling, the share of a head that turns.
//!
//! Defaults and precedence are those of transformers.

use std::f64::consts::PI;

use serde_json::Value;

use super::json::Reader;
use crate::BackboneError;

/// How rotation frequencies are stretched for long contexts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All positions divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3's: low frequencies divided by a factor, high ones kept, a ramp between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths longer than `original / low` are divided.
        low: f64,
        /// Wavelengths shorter than `original / high` are kept.
        high: f64,
        /// Context length of the original training.
        original: f64,
    },
    /// NTK: beyond the original length the base frequency grows with the length of the longest row.
    Dynamic {
        /// The factor.
        factor: f64,
        /// Context length of the original training.
        original: f64,
    },
    /// YaRN: frequencies that turn rarely within the original length are divided, fast ones kept, a ramp between.
    Yarn {
        /// The factor.
        factor: f64,
        /// Context length of the original training.
        original: f64,
        /// Dimensions (of `rotary_dim / 2`) at which the ramp begins and ends.
        ramp: (f64, f64),
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
    },
    /// LongRoPE (Phi-3): a divisor for every frequency, `[rotary_dim / 2]`, one set up to the original length of the
    /// longest row and another beyond.
    LongRope {
        /// Divisors up to the original length.
        short: Vec<f64>,
        /// Divisors beyond it.
        long: Vec<f64>,
        /// Context length of the original training.
        original: f64,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
    },
    /// A divisor for every frequency, as GGUF files store them: `[rotary_dim / 2]`.
    Divisors(Vec<f32>),
}

impl RopeScaling {
    /// Whether its numbers can be computed with, for heads of which `rotary_dim` values turn.
    pub(super) fn fits(&self, rotary_dim: usize) -> bool {
        let positive = |values: &[f64]| values.iter().all(|x| x.is_finite() && *x > 0.0);
        let half = rotary_dim / 2;
        match self {
            Self::None => true,
            Self::Linear { factor } => positive(&[*factor]),
            Self::Llama3 { factor, low, high, original } => positive(&[*factor, *low, *high, *original]) && low < high,
            // The base grows by the power d / (d - 2).
            Self::Dynamic { factor, original } => positive(&[*factor, *original]) && *factor >= 1.0 && rotary_dim > 2,
            Self::Yarn { factor, original, ramp: (start, end), attention_factor } => {
                positive(&[*factor, *original, *attention_factor]) && start.is_finite() && end.is_finite()
            }
            Self::LongRope { short, long, original, attention_factor } => {
                let sets = [short, long];
                sets.iter().all(|s| s.len() == half && positive(s)) && positive(&[*original, *attention_factor])
            }
            Self::Divisors(divisors) => divisors.len() == half && divisors.iter().all(|x| x.is_finite() && *x > 0.0),
        }
    }

    /// Tokens of the longest row up to which frequencies do not depend on them, where they do at all.
    pub(super) fn steady(&self) -> Option<usize> {
        match self {
            Self::Dynamic { original, .. } | Self::LongRope { original, .. } => Some(*original as usize),
            _ => None,
        }
    }

    /// Longest context that it makes of the one in the configuration.
    pub(super) fn longest(&self, max_positions: usize) -> usize {
        match self {
            Self::Dynamic { factor, original } | Self::Yarn { factor, original, .. } => {
                max_positions.max((factor * original) as usize)
            }
            _ => max_positions,
        }
    }

    /// Whether a row that grows from `past` tokens to `total` is turned by other frequencies from then on, all of it.
    pub(crate) fn switches(&self, past: usize, total: usize) -> bool {
        match self {
            Self::LongRope { original, .. } => past as f64 <= *original && total as f64 > *original,
            _ => false,
        }
    }
}

/// YaRN's growth of attention for a context `factor` times as long, in a model with this multiplier of it.
pub(super) fn yarn_amplitude(factor: f64, multiplier: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * multiplier * factor.ln() + 1.0 }
}

/// What YaRN's ramp between kept and divided frequencies is made from.
pub(super) struct YarnRamp {
    /// Context length of the original training.
    pub(super) original: f64,
    /// Base frequency.
    pub(super) theta: f64,
    /// How much of a head turns.
    pub(super) rotary_dim: usize,
    /// Turns within the original length from which on frequencies are kept.
    pub(super) fast: f64,
    /// Turns up to which they are divided.
    pub(super) slow: f64,
    /// Whether the ends are whole dimensions.
    pub(super) whole: bool,
}

impl YarnRamp {
    /// [`YarnRamp::fast`] where nothing else is said.
    pub(super) const FAST: f64 = 32.0;
    /// [`YarnRamp::slow`] where nothing else is said.
    pub(super) const SLOW: f64 = 1.0;

    /// Dimensions (of `rotary_dim / 2`) at which the ramp begins and ends.
    pub(super) fn ends(&self) -> (f64, f64) {
        let turned = self.rotary_dim as f64;
        // The dimension whose frequency makes that many turns within the original length.
        let dimension = |turns: f64| turned * (self.original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
        let (start, end) = (dimension(self.fast), dimension(self.slow));
        let (start, end) = if self.whole { (start.floor(), end.ceil()) } else { (start, end) };
        (start.max(0.0), end.min(turned - 1.0))
    }
}

/// What a configuration says of RoPE.
pub(super) struct Rope {
    pub(super) theta: f64,
    pub(super) scaling: RopeScaling,
    /// Base frequency of sliding layers, where it is another one.
    pub(super) local_theta: Option<f64>,
    /// How much of a head turns.
    pub(super) rotary_dim: usize,
}

impl Reader<'_> {
    pub(super) fn rope(&self, family: &str, head_dim: usize, max_positions: usize) -> Result<Rope, BackboneError> {
        let gemma3 = family.starts_with("gemma3");
        let default_theta = if gemma3 { 1e6 } else { 1e4 };
        let default_local = gemma3.then_some(1e4);
        // Newer files keep everything about RoPE in one object, or in one for each kind of layer.
        let parameters = self.object("rope_parameters")?;
        let of = |kind: &str| parameters?.get(kind)?.as_object();
        let json = of("full_attention").or(parameters).or(self.object("rope_scaling")?);
        let inner = json.map(|json| Reader { path: self.path, json });
        let local = match (of("sliding_attention"), parameters) {
            (Some(json), _) => Reader { path: self.path, json }.optional_number("rope_theta")?,
            (None, None) if gemma3 => self.optional_number("rope_local_base_freq")?,
            _ => None,
        };
        let inner_number = |key: &str| inner.as_ref().map_or(Ok(None), |r| r.optional_number(key));
        let theta = match inner_number("rope_theta")? {
            Some(theta) => theta,
            None => self.optional_number("rope_theta")?.unwrap_or(default_theta),
        };
        let share = match inner_number("partial_rotary_factor")? {
            Some(share) => share,
            None => self.optional_number("partial_rotary_factor")?.unwrap_or(1.0),
        };
        if share != 1.0 && (family != "phi3" || !(share > 0.0 && share < 1.0)) {
            return self.refuse(format!("partial_rotary_factor {share} of {family} is not supported"));
        }
        // As Python's int() cuts it.
        let rotary_dim = (head_dim as f64 * share) as usize;
        // A length beside the object comes before one inside; Phi-3 always has one there.
        let outer = self.optional_number("original_max_position_embeddings")?.or((family == "phi3").then_some(4096.0));
        let original = outer.or(inner_number("original_max_position_embeddings")?).unwrap_or(max_positions as f64);
        let scaling = match &inner {
            Some(inner) => {
                let lengths = Lengths { original, longest: max_positions as f64 };
                inner.scaling(family, &lengths, theta, rotary_dim)?
            }
            None => RopeScaling::None,
        };
        Ok(Rope { theta, scaling, local_theta: local.or(default_local), rotary_dim })
    }

    /// This object as a scaling.
    fn scaling(
        &self,
        family: &str,
        lengths: &Lengths,
        theta: f64,
        rotary_dim: usize,
    ) -> Result<RopeScaling, BackboneError> {
        let Lengths { original, longest } = *lengths;
        let number = |key: &str| {
            self.optional_number(key)?
                .ok_or_else(|| BackboneError::config(self.path, format!("rope_scaling.{key} is missing")))
        };
        let kind = ["rope_type", "type"].iter().find_map(|k| self.value(k)).and_then(Value::as_str);
        let kind = match (family, kind.unwrap_or("default")) {
            // Names that earlier versions of Phi-3 had for it.
            ("phi3", "su" | "yarn") => "longrope",
            ("phi3", other) if !["default", "longrope"].contains(&other) => {
                return self.refuse(format!("RoPE scaling {other:?} of phi3 is not supported"));
            }
            (_, kind) => kind,
        };
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original,
            }),
            "dynamic" => Ok(RopeScaling::Dynamic { factor: number("factor")?, original: longest }),
            "yarn" => {
                let factor = self.optional_number("factor")?.unwrap_or(longest / original);
                let attention_factor = match self.optional_number("attention_factor")? {
                    Some(factor) => factor,
                    None => self.yarn_attention_factor(factor)?,
                };
                let turns = |key: &str, default: f64| match self.optional_number(key)? {
                    Some(turns) if turns < 0.0 => Err(self.wrong(key, "a number of turns")),
                    given => Ok(given.filter(|n| *n != 0.0).unwrap_or(default)),
                };
                let (fast, slow) = (turns("beta_fast", YarnRamp::FAST)?, turns("beta_slow", YarnRamp::SLOW)?);
                let whole = self.flag("truncate", true)?;
                let ramp = YarnRamp { original, theta, rotary_dim, fast, slow, whole };
                Ok(RopeScaling::Yarn { factor, original, ramp: ramp.ends(), attention_factor })
            }
            "longrope" => {
                let factor = self.optional_number("factor")?.unwrap_or(longest / original);
                let attention_factor = match self.optional_number("attention_factor")? {
                    Some(factor) => factor,
                    None if factor <= 1.0 => 1.0,
                    None => (1.0 + factor.ln() / original.ln()).sqrt(),
                };
                let (short, long) = (self.numbers("short_factor")?, self.numbers("long_factor")?);
                Ok(RopeScaling::LongRope { short, long, original, attention_factor })
            }
            other => self.refuse(format!("RoPE scaling {other:?} is not supported")),
        }
    }

    fn yarn_attention_factor(&self, factor: f64) -> Result<f64, BackboneError> {
        let given = |key: &str| self.optional_number(key).map(|m| m.filter(|m| *m != 0.0));
        Ok(match (given("mscale")?, given("mscale_all_dim")?) {
            (Some(numerator), Some(denominator)) => {
                yarn_amplitude(factor, numerator) / yarn_amplitude(factor, denominator)
            }
            _ => yarn_amplitude(factor, 1.0),
        })
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>, BackboneError> {
        let value = self
            .value(key)
            .ok_or_else(|| BackboneError::config(self.path, format!("rope_scaling.{key} is missing")))?;
        let numbers = value.as_array().and_then(|items| items.iter().map(Value::as_f64).collect());
        numbers.ok_or_else(|| self.wrong(key, "a list of numbers"))
    }
}

/// Context lengths that scalings are made from.
struct Lengths {
    original: f64,
    longest: f64,
}
