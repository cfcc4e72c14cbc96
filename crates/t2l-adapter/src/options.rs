//! How adapters are written, whatever the format.

use t2l_core::LoraWeights;

use crate::AdapterError;

/// Value type of written factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    Bf16,
}

impl From<Dtype> for safetensors::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

/// How an adapter is written.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// Value type of the factors.
    pub dtype: Dtype,
    /// Name of the base model to write; by default the adapter's own.
    pub base_model_name: Option<String>,
    /// Task description it was generated from, kept beside the factors.
    pub description: Option<String>,
    /// Replace the adapter that is there already; other files in its folder stay.
    pub force: bool,
}

/// Factors that belong together, at a finite scale.
pub(crate) fn check_factors(layer: usize, module: &str, weights: &LoraWeights) -> Result<(), AdapterError> {
    let ([rank, cols], [out, width]) = (weights.a.dims(), weights.b.dims());
    if rank == 0 || cols == 0 || out == 0 || width != rank {
        let reason = format!("A [{rank}, {cols}] and B [{out}, {width}] do not belong together");
        return Err(AdapterError::place(layer, module, reason));
    }
    if !weights.alpha.is_finite() {
        return Err(AdapterError::place(layer, module, format!("alpha is {}", weights.alpha)));
    }
    Ok(())
}
