//! A checkpoint between two.

use burn::tensor::Tensor;
use serde_json::json;

use super::Checkpoint;
use crate::HypernetError;

impl Checkpoint {
    /// A checkpoint whose trained weights lie between this one's (at a share of 0) and another's (at 1) that went on
    /// from it: often better on tasks of other kinds than either (Wortsman et al., Robust fine-tuning of zero-shot
    /// models, 2022). One that was told of no quoted words may be the
    /// start of one that was. One that copies none may be the start of one that does: what copies is then the other's, at
    /// every share. So may one without instruction effects of one with them.
    ///
    /// # Errors
    /// Hypernetworks of different shapes, or of different encoders or base models; a share outside [0, 1].
    pub fn towards(&self, other: &Self, share: f64) -> Result<Self, HypernetError> {
        let wrong = |key, value: String, reason| Err(HypernetError::Config { key, value, reason });
        if !(0.0..=1.0).contains(&share) {
            return wrong("share", share.to_string(), "must be from 0 to 1");
        }
        if self.manifest.encoder != other.manifest.encoder || self.manifest.base_model != other.manifest.base_model {
            let value = format!("{} for {}", other.manifest.encoder.id, other.manifest.base_model.id);
            return wrong("encoder and base model", value, "are not those of the other checkpoint");
        }
        let mut start = self.clone();
        if other.manifest.quoted_words {
            start.read_quoted_words(other.hypernet.config.read_width());
        }
        let mut start = start.hypernet;
        if other.hypernet.config.instructed.is_some() && start.config.instructed.is_none() {
            start.instruct_as(&other.hypernet);
        }
        if other.hypernet.config.copying.is_some() && start.config.copying.is_none() {
            start.copy_words_as(&other.hypernet);
        }
        if start.config != other.hypernet.config {
            return wrong("config", "of the second checkpoint".into(), "is not that of the first");
        }
        let mut hypernet = other.hypernet.clone();
        for ((_, to), (_, from)) in hypernet.parameters.iter_mut().zip(start.parameters.iter()) {
            let from: Tensor<1> = from.values.clone();
            to.values = from.mul_scalar(1.0 - share) + to.values.clone().mul_scalar(share);
        }
        let mut manifest = other.manifest.clone();
        let between = json!({ "from": self.sha256(), "to": other.sha256(), "share": share });
        if let Some(recipe) = manifest.recipe.as_object_mut() {
            recipe.insert("between".into(), between);
        } else {
            manifest.recipe = json!({ "between": between });
        }
        Ok(Self { manifest, hypernet })
    }
}
