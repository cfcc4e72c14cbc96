//! The files that sentence-transformers puts beside a model: what to do with its output, and where to cut its input.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::config::{EncoderConfig, Naming};
use crate::error::{read_json, read_json_if_there};
use crate::{EncoderError, Pooling};

/// Longest input by default: descriptions of the published recipe are cut there.
const DEFAULT_MAX_SEQ_LENGTH: usize = 8192;

/// What surrounds the model itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Folder of the model's own files.
    pub model: PathBuf,
    /// Several ways of pooling give vectors side by side.
    pub pooling: Vec<Pooling>,
    /// Whether the folder asks for normalised vectors.
    pub normalise: bool,
    /// From sentence_bert_config.json.
    pub max_seq_length: Option<usize>,
    /// Whether texts are lower-cased before the tokenizer sees them.
    pub lower_case: bool,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    r#type: String,
}

#[derive(Deserialize, Default)]
struct Sentence {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Deserialize)]
struct PoolingFile {
    pooling_mode: Option<Pooling>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

impl Recipe {
    /// Reads modules.json and what it names. Without it: the folder itself is the model and 1_Pooling, if there, says
    /// how to pool.
    pub fn read(folder: &Path) -> Result<Self, EncoderError> {
        let modules_path = folder.join("modules.json");
        let modules: Vec<Module> = read_json_if_there(&modules_path)?.unwrap_or_default();
        let mut model = folder.to_owned();
        let mut pooling = None;
        let mut normalise = false;
        for module in &modules {
            let path = inside(folder, &module.path, &modules_path)?;
            match module.r#type.rsplit('.').next().unwrap_or_default() {
                "Transformer" => model = path,
                "Pooling" => pooling = Some(read_pooling(&path.join("config.json"))?),
                "Normalize" => normalise = true,
                other => {
                    let reason = format!("module {other:?} is not supported");
                    return Err(EncoderError::config(&modules_path, "type", reason));
                }
            }
        }
        if modules.is_empty() {
            let path = folder.join("1_Pooling").join("config.json");
            if path.exists() {
                pooling = Some(read_pooling(&path)?);
            }
        }
        let sentence: Sentence = read_json_if_there(&model.join("sentence_bert_config.json"))?.unwrap_or_default();
        Ok(Self {
            model,
            pooling: pooling.unwrap_or_default(),
            normalise,
            max_seq_length: sentence.max_seq_length,
            lower_case: sentence.do_lower_case,
        })
    }

    /// How to pool: as said, else the first token for GTE and the mean for the others.
    pub fn pooling(&self, config: &EncoderConfig) -> Vec<Pooling> {
        match (self.pooling.as_slice(), config.naming) {
            ([], Naming::Gte { .. }) => vec![Pooling::Cls],
            ([], Naming::Bert) => vec![Pooling::Mean],
            (said, _) => said.to_vec(),
        }
    }

    /// Where to cut: as said, else what tokenizer and model were made for; never beyond the position table.
    pub fn max_seq_length(&self, config: &EncoderConfig) -> Result<usize, EncoderError> {
        #[derive(Deserialize, Default)]
        struct TokenizerConfig {
            // "No limit" is written as 1e30.
            model_max_length: Option<f64>,
        }
        let said = match self.max_seq_length {
            Some(length) => length,
            None => {
                let path = self.model.join("tokenizer_config.json");
                let file: TokenizerConfig = read_json_if_there(&path)?.unwrap_or_default();
                let made_for = file.model_max_length.filter(|l| *l >= 1.0).map_or(usize::MAX, |l| l as usize);
                made_for.min(config.max_position_embeddings).min(DEFAULT_MAX_SEQ_LENGTH)
            }
        };
        Ok(said.min(config.position_limit()))
    }
}

fn read_pooling(path: &Path) -> Result<Vec<Pooling>, EncoderError> {
    let file: PoolingFile = read_json(path)?;
    // In the order in which the vectors stand side by side.
    let chosen: Vec<Pooling> = [
        (file.pooling_mode_cls_token, Pooling::Cls),
        (file.pooling_mode_max_tokens, Pooling::Max),
        (file.pooling_mode_mean_tokens, Pooling::Mean),
        (file.pooling_mode_mean_sqrt_len_tokens, Pooling::MeanSqrtLen),
        (file.pooling_mode_weightedmean_tokens, Pooling::WeightedMean),
        (file.pooling_mode_lasttoken, Pooling::LastToken),
    ]
    .into_iter()
    .filter_map(|(on, pooling)| on.then_some(pooling))
    .collect();
    match (chosen.is_empty(), file.pooling_mode) {
        (_, Some(pooling)) => Ok(vec![pooling]),
        (false, None) => Ok(chosen),
        (true, None) => Err(EncoderError::config(path, "pooling_mode", "none is chosen")),
    }
}

/// A module's folder: below the model's own, whatever the file says.
fn inside(folder: &Path, path: &str, named_in: &Path) -> Result<PathBuf, EncoderError> {
    let relative = Path::new(path);
    if relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        Ok(folder.join(relative))
    } else {
        Err(EncoderError::config(named_in, "path", format!("{path:?} leads out of the folder")))
    }
}
