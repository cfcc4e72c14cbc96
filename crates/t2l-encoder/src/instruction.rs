//! What a description does to a language model as an instruction: how its attention changes when it is told.
//!
//! Before an answer a model's attention heads hand on something of the task (Todd et al., Function Vectors in Large Language
//! Models, 2024, where the task stands in examples). Here it stands in the description: what attention hands to the output
//! projections at the last token of a prompt, with the description before an input, less the same without it, on
//! average over a few inputs that have nothing to do with any task. A constant added to the values of attention puts it
//! back without the description, and that an adapter of `v_proj` can do.

use burn::tensor::{Tensor, TensorData};
use sha2::{Digest, Sha256};
use t2l_backbone::chat::Message;
use t2l_backbone::{Backbone, BackboneError};
use t2l_core::{AdapterBatch, EncodeError, EncodedTexts, LoraFactors, ModuleFactors, TextEncoder};

use crate::encoder::{batches, check};
use crate::{EncoderError, TokenBatch, format_description};

/// Tokens of a description at which it is cut, where the model has room for twice as many.
const MAX_TOKENS: usize = 256;
/// Bytes of the adapter's copies that are worn at once: 256 MiB.
const WORN_BYTES: usize = 256 << 20;

/// What descriptions do to attention in the last layers of a language model, as values of its `v_proj`.
#[derive(Debug, Clone)]
pub struct InstructionEffects {
    id: String,
    backbone: Backbone,
    layers: usize,
    /// The adapter that the model wears meanwhile.
    worn: LoraFactors,
    /// What attention hands on without a description, for each input: `[inputs, layers · values]`.
    untold: Vec<Vec<f32>>,
}

impl InstructionEffects {
    /// Inputs that stand behind the description: a sentence, a list, numbers, a question with options.
    pub const INPUTS: [&str; 4] = [
        "Lena went home early because her brother had lost his keys.",
        "lamp, river, nine, pencil, Tuesday",
        "[12, 7, 150, 38, 91]",
        "Which of these can be eaten?\nOptions:\n- a stone\n- a pear\n- a chair",
    ];

    /// In this many of the last layers of a language model, which wears the one adapter of `worn` meanwhile. The weights are
    /// shared.
    ///
    /// # Errors
    /// More layers than there are, an adapter that does not fit, or a chat template or tokenizer that refuses a plain turn.
    pub fn new(backbone: Backbone, layers: usize, worn: LoraFactors) -> Result<Self, EncoderError> {
        let there = backbone.decoder.config().layers;
        if !(1..=there).contains(&layers) {
            let reason = format!("{layers} layers of a language model that has {there}");
            return Err(EncoderError::Batch { reason });
        }
        let id = format!("instruction effects in the last {layers} layers of {} by {}", backbone.id, digest(&worn));
        let worn = on_device_of(&backbone, worn);
        let mut effects = Self { id, backbone, layers, worn, untold: vec![] };
        let rows = Self::INPUTS.iter().map(|input| effects.prompt(input)).collect::<Result<Vec<_>, _>>()?;
        effects.untold = effects.attended(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        Ok(effects)
    }

    /// The same encoder under another name.
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// Tokens of the prompt for a user turn, without a system turn.
    fn prompt(&self, turn: &str) -> Result<Vec<u32>, BackboneError> {
        let text = self.backbone.chat.render_bare(&[Message::user(turn)], true)?;
        let ids = self.backbone.tokenizer.encode(&text)?;
        let vocabulary = self.backbone.decoder.config().vocab_size;
        match ids.iter().find(|&&id| id as usize >= vocabulary) {
            Some(id) => Err(BackboneError::Prompt(format!("token {id}; the model has {vocabulary}"))),
            None if ids.is_empty() => Err(BackboneError::Prompt("it has no tokens".into())),
            None => Ok(ids),
        }
    }

    /// A description as an instruction, and whether it was cut.
    fn instruction(&self, text: &str) -> Result<(String, bool), BackboneError> {
        let text = format_description(text);
        let mut ids = self.backbone.tokenizer.encode(&text)?;
        let most = MAX_TOKENS.min(self.backbone.decoder.config().max_positions / 2);
        if ids.len() <= most {
            return Ok((text, false));
        }
        ids.truncate(most);
        Ok((self.backbone.tokenizer.decode(&ids, false)?, true))
    }

    /// What attention hands on at the last token of every row, the query heads of one value head on average:
    /// `[rows][layers · values]`.
    fn attended(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>, EncoderError> {
        let decoder = &self.backbone.decoder;
        let (config, device) = (decoder.config(), decoder.device());
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let mut attended = vec![vec![]; rows.len()];
        // Every row has a copy of what is worn.
        let weights: usize =
            self.worn.modules.iter().map(|m| m.a.shape().num_elements() + m.b.shape().num_elements()).sum();
        let most = (WORN_BYTES / (4 * weights).max(1)).max(1);
        let all = batches(&lengths);
        for batch in all.iter().flat_map(|batch| batch.chunks(most)) {
            let tokens = TokenBatch::padded(&batch.iter().map(|&i| rows[i]).collect::<Vec<_>>(), 0)?;
            let ids = tokens.ids(&device).reshape([tokens.rows(), tokens.length()]);
            let last = tokens.last(&device);
            let worn = AdapterBatch::select_factors(&self.worn, &vec![Some(0); batch.len()]);
            let worn = worn.map_err(BackboneError::from)?;
            let groups = [batch.len(), config.kv_heads, config.heads / config.kv_heads, config.head_dim];
            let width = config.kv_heads * config.head_dim;
            let all_tokens = [tokens.rows() * tokens.length(), config.heads * config.head_dim];
            let mut at_last = Vec::with_capacity(self.layers);
            decoder.attention_outputs(decoder.embed(ids), &worn, config.layers - self.layers, |output| {
                at_last.push(output.reshape(all_tokens).select(0, last.clone()));
            })?;
            for output in at_last {
                let values: Vec<f32> = output.reshape(groups).mean_dim(2).into_data().iter().collect();
                for (&i, values) in batch.iter().zip(values.chunks(width)) {
                    attended[i].extend_from_slice(values);
                }
            }
        }
        Ok(attended)
    }
}

/// An instruction before an input, as prompts have it.
fn turn(instruction: &str, input: &str) -> String {
    format!("{instruction}\n\n{input}")
}

/// Factors where the model's weights are: constants of the autodiff device where it is one for training.
fn on_device_of(backbone: &Backbone, factors: LoraFactors) -> LoraFactors {
    let place = |t: Tensor<4>| if t.device() == backbone.decoder.device() { t } else { Tensor::from_inner(t) };
    let moved = |m: ModuleFactors| ModuleFactors { a: place(m.a), b: place(m.b), name: m.name };
    LoraFactors { scaling: factors.scaling, modules: factors.modules.into_iter().map(moved).collect() }
}

/// Hexadecimal digits that follow from an adapter's values, and from what the model is asked.
fn digest(factors: &LoraFactors) -> String {
    let mut hasher = Sha256::new().chain_update(factors.scaling.value().to_le_bytes());
    hasher.update(MAX_TOKENS.to_le_bytes());
    hasher.update(InstructionEffects::INPUTS.map(|input| turn("", input)).join("\0"));
    for m in &factors.modules {
        for values in [m.a.to_data(), m.b.to_data()] {
            values.iter::<f32>().for_each(|x| hasher.update(x.to_le_bytes()));
        }
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl TextEncoder for InstructionEffects {
    fn id(&self) -> &str {
        &self.id
    }

    fn width(&self) -> usize {
        let config = self.backbone.decoder.config();
        self.layers * config.kv_heads * config.head_dim
    }

    fn encode(&self, texts: &[&str]) -> Result<EncodedTexts, EncodeError> {
        check(texts)?;
        let (mut rows, mut truncated) = (Vec::new(), Vec::new());
        for (index, text) in texts.iter().enumerate() {
            let refused = |e: BackboneError| EncodeError::Tokenize { index, reason: e.to_string() };
            let (instruction, cut) = self.instruction(text).map_err(refused)?;
            truncated.push(cut);
            for input in Self::INPUTS {
                rows.push(self.prompt(&turn(&instruction, input)).map_err(refused)?);
            }
        }
        let attended = self.attended(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let attended = attended.map_err(|e| EncodeError::Model { reason: e.to_string() })?;
        let mut values = Vec::with_capacity(texts.len() * self.width());
        for told in attended.chunks(Self::INPUTS.len()) {
            let mut mean = vec![0.0f32; self.width()];
            for (told, untold) in told.iter().zip(&self.untold) {
                let changes = told.iter().zip(untold).map(|(told, untold)| told - untold);
                mean.iter_mut().zip(changes).for_each(|(mean, change)| *mean += change / Self::INPUTS.len() as f32);
            }
            values.extend(mean);
        }
        let values = TensorData::new(values, [texts.len(), self.width()]);
        let embeddings = Tensor::from_data(values, &self.backbone.decoder.device());
        Ok(EncodedTexts { embeddings, truncated })
    }
}
