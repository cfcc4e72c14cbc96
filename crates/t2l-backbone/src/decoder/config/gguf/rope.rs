//! RoPE as GGUF files describe it: keys under `<architecture>.rope`, and tensors of divisors.

use t2l_gguf::GgufFile;

use crate::BackboneError;
use crate::decoder::config::rope::{RopeScaling, YarnRamp, yarn_amplitude};

/// Tensor of frequency divisors: how llama.cpp writes Llama 3's scaling.
const DIVISORS: &str = "rope_freqs.weight";
/// LongRoPE's two sets of divisors.
const SHORT_DIVISORS: &str = "rope_factors_short.weight";
const LONG_DIVISORS: &str = "rope_factors_long.weight";

/// What the rest of the file says that scaling depends on.
pub(super) struct Rotated<'a> {
    /// The architecture.
    pub(super) family: &'a str,
    /// How much of a head turns.
    pub(super) rotary_dim: usize,
    /// Base frequency.
    pub(super) theta: f64,
    /// The context length that the file names.
    pub(super) context: usize,
}

impl Rotated<'_> {
    /// The file's scaling.
    ///
    /// # Errors
    /// A kind that is not supported, a missing key, or divisors that do not fit.
    pub(super) fn scaling(&self, file: &GgufFile) -> Result<RopeScaling, BackboneError> {
        let kind = match file.get::<&str>(&self.key("type"))? {
            // Phi-3's files need not name theirs.
            None | Some("none") if file.tensor(LONG_DIVISORS).is_some() => "longrope",
            None => "none",
            Some(kind) => kind,
        };
        let divided = file.tensor(DIVISORS).is_some();
        match kind {
            "none" | "linear" => {
                let factor = if kind == "linear" { file.f32(&self.key("factor"))? } else { 1.0 };
                if divided {
                    let divisors = self.divisors(file, DIVISORS)?;
                    return Ok(RopeScaling::Divisors(divisors.into_iter().map(|d| d * factor).collect()));
                }
                let linear = RopeScaling::Linear { factor: f64::from(factor) };
                Ok(if kind == "linear" { linear } else { RopeScaling::None })
            }
            "longrope" if self.family == "phi3" && !divided => self.long_rope(file),
            "yarn" if self.family != "phi3" && !divided => self.yarn(file),
            other => {
                let with = if divided { format!(" with {DIVISORS}") } else { String::new() };
                let reason = format!("RoPE scaling {other:?}{with} of {} is not supported", self.family);
                Err(BackboneError::config(file.path(), reason))
            }
        }
    }

    fn long_rope(&self, file: &GgufFile) -> Result<RopeScaling, BackboneError> {
        let set = |name| self.divisors(file, name).map(|set| set.into_iter().map(f64::from).collect());
        Ok(RopeScaling::LongRope {
            short: set(SHORT_DIVISORS)?,
            long: set(LONG_DIVISORS)?,
            original: self.original(file)?,
            attention_factor: self.number(file, "attn_factor")?.unwrap_or(1.0),
        })
    }

    fn yarn(&self, file: &GgufFile) -> Result<RopeScaling, BackboneError> {
        let factor = f64::from(file.f32(&self.key("factor"))?);
        if let Some(share) = self.number(file, "yarn_ext_factor")?.filter(|&share| share != 1.0) {
            let reason = format!("{} is {share}; only 1 is supported", self.key("yarn_ext_factor"));
            return Err(BackboneError::config(file.path(), reason));
        }
        let all_dims = self.number(file, "yarn_log_multiplier")?.filter(|&m| m != 0.0);
        let amplitude = match self.number(file, "yarn_attn_factor")? {
            Some(amplitude) => amplitude,
            None => yarn_amplitude(factor, 1.0) / all_dims.map_or(1.0, |m| yarn_amplitude(factor, m)),
        };
        let original = self.original(file)?;
        let ramp = YarnRamp {
            original,
            theta: self.theta,
            rotary_dim: self.rotary_dim,
            fast: self.turns(file, "yarn_beta_fast")?.unwrap_or(YarnRamp::FAST),
            slow: self.turns(file, "yarn_beta_slow")?.unwrap_or(YarnRamp::SLOW),
            whole: true,
        };
        Ok(RopeScaling::Yarn {
            factor,
            original,
            ramp: ramp.ends(),
            attention_factor: amplitude * self.number(file, "attn_factor")?.unwrap_or(1.0),
        })
    }

    fn original(&self, file: &GgufFile) -> Result<f64, BackboneError> {
        Ok(file.get::<usize>(&self.key("original_context_length"))?.unwrap_or(self.context) as f64)
    }

    fn divisors(&self, file: &GgufFile, name: &str) -> Result<Vec<f32>, BackboneError> {
        let wrong = |reason| Err(BackboneError::tensor(file.path(), name, reason));
        let half = self.rotary_dim / 2;
        match file.tensor(name) {
            None => wrong("is missing".into()),
            Some(found) if found.shape != [half] => {
                let width = self.rotary_dim;
                wrong(format!("has shape {:?}, heads of which {width} values turn ask for [{half}]", found.shape))
            }
            Some(_) => Ok(file.read_f32(name)?),
        }
    }

    fn turns(&self, file: &GgufFile, name: &str) -> Result<Option<f64>, BackboneError> {
        match self.number(file, name)? {
            Some(turns) if !(turns > 0.0 && turns.is_finite()) => {
                Err(BackboneError::config(file.path(), format!("{} is {turns}, not a number of turns", self.key(name))))
            }
            turns => Ok(turns),
        }
    }

    fn number(&self, file: &GgufFile, name: &str) -> Result<Option<f64>, BackboneError> {
        Ok(file.get::<f32>(&self.key(name))?.map(f64::from))
    }

    fn key(&self, name: &str) -> String {
        format!("{}.rope.scaling.{name}", self.family)
    }
}
