//! Plain adapters as what a run trains: every task's rows go to its own adapter, or to the one that all share.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde_json::{Value, json};
use t2l_adapter::fused;
use t2l_adapter::gguf::BaseShape;
use t2l_adapter::peft::{self, SaveOptions};
use t2l_backbone::Decoder;
use t2l_core::{AdapterBatch, AdapterLayout, FitError, LoraScaling, Parameters};
use t2l_data::{Corpus, Sampler, TokenizedExample, TrainBatch};

use super::library::REPORT;
use super::plain::{PlainLora, stacked};
use super::step::adapter_step;
use crate::validate::{ROWS, example_nll};
use crate::{LossConfig, Outcome, Part, StepSeed, TrainError, Trainee, files};

/// A held-out example, the adapter that is scored on it, and the group whose mean it goes into (`GROUP/nll`).
#[derive(Debug, Clone)]
pub struct HeldOutRow {
    /// The example.
    pub example: TokenizedExample,
    /// Index of the adapter.
    pub adapter: usize,
    /// Name of the group.
    pub group: String,
}

/// Adapters that are trained side by side.
pub struct Adapters {
    /// Their names; a single one for all tasks has none.
    pub names: Vec<String>,
    /// Their trainable factors.
    pub adapters: Vec<PlainLora>,
    /// For each task of the corpus, the adapter that it trains.
    pub adapter_of_task: Vec<usize>,
    /// Where adapters go, with the base model's id.
    pub layout: AdapterLayout,
    /// Their rank and scaling.
    pub scaling: LoraScaling,
    /// The frozen base model, [`Decoder::for_training`].
    pub decoder: Decoder,
    /// The same, plain: for validation.
    pub plain_decoder: Decoder,
    /// Tokenised examples.
    pub corpus: Corpus,
    /// Draws rows.
    pub sampler: Sampler,
    /// The loss.
    pub loss: LossConfig,
    /// Examples to validate on.
    pub held_out: Vec<HeldOutRow>,
    /// For each adapter, names of the numbers that may judge it.
    pub judged_by: Vec<Vec<String>>,
}

impl Adapters {
    fn parameters(&self) -> Vec<&Parameters> {
        self.adapters.iter().map(|a| &a.parameters).collect()
    }
}

impl Trainee for Adapters {
    fn parts(&self) -> Vec<Part<'_>> {
        let parts = self.names.iter().zip(&self.adapters);
        parts.map(|(name, adapter)| Part { name, parameters: &adapter.parameters }).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameters> {
        self.adapters.iter_mut().map(|a| &mut a.parameters).collect()
    }

    fn device(&self) -> Device {
        self.plain_decoder.device()
    }

    fn data(&self) -> String {
        files::corpus_digest(&self.corpus)
    }

    fn position(&self) -> Value {
        json!({ "names": self.names, "sampler": self.sampler.state() })
    }

    fn restore(&mut self, position: &Value) -> Result<(), String> {
        if position["names"] != json!(self.names) {
            return Err(format!("belongs to other adapters: {}", position["names"]));
        }
        self.sampler.restore(&position["sampler"], &self.corpus)
    }

    fn step(&mut self, seed: StepSeed, active: &[bool]) -> Result<Outcome, TrainError> {
        let mut draws = self.sampler.next_batch(&self.corpus);
        draws.retain(|d| active[self.adapter_of_task[d.task]]);
        if draws.is_empty() {
            let reason = "no row of the batch is for an adapter that is still trained";
            return Err(TrainError::NoData { reason: reason.into() });
        }
        let wears: Vec<usize> = draws.iter().map(|d| self.adapter_of_task[d.task]).collect();
        let rows: Vec<_> = draws.iter().map(|d| self.corpus.example(d)).collect();
        let batch = TrainBatch::new(&rows, 8, 0);
        let (layout, scaling) = (&self.layout, self.scaling);
        let output =
            adapter_step(&self.decoder, &self.parameters(), layout, scaling, &batch, &wears, &self.loss, Some(seed))?;
        let losses: Vec<f64> = output.losses.iter().flatten().copied().collect();
        let examples: Vec<&str> = draws.iter().map(|d| self.corpus.task_name(d.task)).collect();
        Ok(Outcome {
            loss: losses.iter().sum::<f64>() / losses.len().max(1) as f64,
            numbers: vec![("padding_share", batch.padding_share())],
            tokens: batch.tokens,
            examples: examples.join(", "),
            gradients: output.gradients,
        })
    }

    fn validate(&mut self, active: &[bool]) -> Result<BTreeMap<String, f64>, TrainError> {
        let mut rows: Vec<&HeldOutRow> = self.held_out.iter().filter(|r| active[r.adapter]).collect();
        rows.sort_by_key(|r| r.example.prompt.len() + r.example.response.len());
        let factors = stacked(&self.parameters(), &self.layout, self.scaling);
        let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for chunk in rows.chunks(ROWS) {
            let examples: Vec<&TokenizedExample> = chunk.iter().map(|r| &r.example).collect();
            let wears: Vec<Option<usize>> = chunk.iter().map(|r| Some(r.adapter)).collect();
            let adapters = AdapterBatch::select_factors(&factors, &wears)?;
            let nll = example_nll(&self.plain_decoder, &examples, &adapters)?;
            for (row, nll) in chunk.iter().zip(nll) {
                groups.entry(&row.group).or_default().push(nll);
            }
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        Ok(groups.into_iter().map(|(group, values)| (format!("{group}/nll"), mean(&values))).collect())
    }

    fn judged_by(&self, part: usize) -> Vec<String> {
        self.judged_by[part].clone()
    }

    /// A PEFT folder, with the recipe beside the adapter.
    fn export(&self, part: usize, folder: &Path, mut recipe: Value) -> Result<(), TrainError> {
        // What concerns the other adapters of the run stands beside those.
        if let Some(numbers) = recipe["validation"].as_object_mut().filter(|_| !self.names[part].is_empty()) {
            numbers.retain(|name, _| self.judged_by[part].contains(name));
        }
        let factors = stacked(&[&self.adapters[part].parameters], &self.layout, self.scaling);
        let Some(adapter) = factors.adapter(0, &self.layout.base_model) else {
            return Err(FitError::NoSuchAdapter { row: 0, adapter: part, given: self.adapters.len() }.into());
        };
        // As other programs attach it to this base model.
        let adapter = match fused_base(&self.plain_decoder) {
            Some(base) => fused::fuse(&adapter, &base)?,
            None => adapter,
        };
        peft::save(&adapter, folder, &SaveOptions { force: true, ..SaveOptions::default() })?;
        files::write_whole(&folder.join(REPORT), format!("{recipe:#}\n").as_bytes())
    }
}

/// What adapters of a base model that fuses projections are fused and split by; none for other base models.
pub fn fused_base(decoder: &Decoder) -> Option<BaseShape> {
    let c = decoder.config();
    BaseShape::new(&c.family, c.heads, c.kv_heads).filter(|_| c.fused)
}
