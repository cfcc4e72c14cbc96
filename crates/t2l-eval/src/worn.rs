//! What rows wear: generated adapters, and those of the baselines that the hypernetwork is compared with.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Int, Tensor, TensorData};
use t2l_core::{Adapter, AdapterBatch, AdapterGenerator, LoraFactors, TextEncoder};
use t2l_data::Task;

use crate::{Condition, EvalError};

/// A task's own adapter, where there is one.
pub type TaskAdapters<'a> = dyn Fn(&Task) -> Result<Option<Adapter>, EvalError> + 'a;

/// What the baselines are made of; each is scored where a plan names its condition.
#[derive(Clone, Copy, Default)]
pub struct Baselines<'a> {
    /// One adapter for all tasks.
    pub multitask: Option<&'a Adapter>,
    /// The mean of a library's adapters.
    pub mean_lora: Option<&'a Adapter>,
    /// A task's own adapter, where a library has one.
    pub task_lora: Option<&'a TaskAdapters<'a>>,
    /// A hypernetwork that reads each example's user turn.
    pub hyperdecoder: Option<(&'a dyn TextEncoder, &'a dyn AdapterGenerator)>,
    /// Examples with answers before the question (condition `few_shot`); 0: none.
    pub shots: usize,
}

impl Baselines<'_> {
    /// Fails where a condition needs what is not there.
    pub(crate) fn check(&self, conditions: impl IntoIterator<Item = Condition>) -> Result<(), EvalError> {
        for condition in conditions {
            let (there, needs) = match condition {
                Condition::Multitask => (self.multitask.is_some(), "an adapter for all tasks (--multitask)"),
                Condition::MeanLora => (self.mean_lora.is_some(), "a library of adapters (--library)"),
                Condition::TaskLora => (self.task_lora.is_some(), "a library of adapters (--library)"),
                Condition::Hyperdecoder => (self.hyperdecoder.is_some(), "a hyperdecoder (--hyperdecoder)"),
                Condition::FewShot => (self.shots > 0, "a number of examples (--shots)"),
                _ => (true, ""),
            };
            if !there {
                return Err(EvalError::Baseline { condition, needs });
            }
        }
        Ok(())
    }
}

/// The adapter that a row wears, by its index in the [`Wardrobe`] of its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worn {
    /// One that was generated from a description.
    Generated(usize),
    /// One that was loaded.
    Loaded(usize),
    /// A hyperdecoder's, generated only while it is worn: there is one for every example.
    OfTurn(usize),
}

/// All adapters of a chunk.
#[derive(Default)]
pub(crate) struct Wardrobe<'a> {
    pub generated: Option<LoraFactors>,
    pub loaded: Vec<Cow<'a, Adapter>>,
    /// What the adapters of turns are generated from, `[turns, e]`, and by what.
    pub turns: Option<(Tensor<2>, &'a dyn AdapterGenerator)>,
}

impl Wardrobe<'_> {
    /// The adapters of some rows.
    pub fn adapters(&self, rows: &[Option<Worn>]) -> Result<AdapterBatch, EvalError> {
        if rows.iter().all(Option::is_none) {
            return Ok(AdapterBatch::none(rows.len()));
        }
        if let Some(factors) = &self.generated {
            let generated: Option<Vec<Option<usize>>> = rows
                .iter()
                .map(|row| match row {
                    None => Some(None),
                    Some(Worn::Generated(i)) => Some(Some(*i)),
                    Some(_) => None,
                })
                .collect();
            if let Some(generated) = generated {
                return Ok(AdapterBatch::select_factors(factors, &generated)?);
            }
        }
        self.of_several_kinds(rows)
    }

    /// Rows of which some wear what no single set of factors holds: one adapter at a time.
    fn of_several_kinds(&self, rows: &[Option<Worn>]) -> Result<AdapterBatch, EvalError> {
        let turns = self.turn_factors(rows)?;
        let mut adapters: Vec<Cow<'_, Adapter>> = Vec::new();
        let mut seats = Vec::with_capacity(rows.len());
        for row in rows {
            let adapter = match row {
                None => None,
                Some(Worn::Loaded(i)) => self.loaded.get(*i).map(|a| Cow::Borrowed(a.as_ref())),
                Some(Worn::Generated(i)) => self.generated.as_ref().and_then(|f| f.adapter(*i, "")).map(Cow::Owned),
                Some(Worn::OfTurn(i)) => turns.get(i).cloned().map(Cow::Owned),
            };
            if row.is_some() && adapter.is_none() {
                let given = self.loaded.len();
                return Err(t2l_core::FitError::NoSuchAdapter { row: seats.len(), adapter: given, given }.into());
            }
            seats.push(adapter.map(|adapter| {
                adapters.push(adapter);
                adapters.len() - 1
            }));
        }
        let Some(device) = adapters.iter().find_map(|a| a.iter().next().map(|(_, _, w)| w.a.device())) else {
            return Ok(AdapterBatch::none(rows.len()));
        };
        let adapters: Vec<&Adapter> = adapters.iter().map(AsRef::as_ref).collect();
        Ok(AdapterBatch::from_adapters(&adapters, &seats, &device)?)
    }

    /// The adapters of the turns that are worn, each once, by the turn's index.
    fn turn_factors(&self, rows: &[Option<Worn>]) -> Result<BTreeMap<usize, Adapter>, EvalError> {
        let worn = rows.iter().filter_map(|row| match row {
            Some(Worn::OfTurn(i)) => Some(*i),
            _ => None,
        });
        let worn: BTreeSet<usize> = worn.collect();
        let Some((embeddings, generator)) = self.turns.as_ref().filter(|_| !worn.is_empty()) else {
            return Ok(BTreeMap::new());
        };
        let index: Vec<i64> = worn.iter().map(|&i| i as i64).collect();
        let index: Tensor<1, Int> = Tensor::from_data(TensorData::new(index, [worn.len()]), &embeddings.device());
        let factors = generator.generate(embeddings.clone().select(0, index))?;
        if let Some(row) = not_finite(&factors) {
            let what =
                format!("the hyperdecoder's adapter of turn {}", worn.iter().nth(row).copied().unwrap_or_default());
            return Err(EvalError::NotFinite { task: String::new(), what });
        }
        let adapters = worn.iter().enumerate().filter_map(|(row, &turn)| Some((turn, factors.adapter(row, "")?)));
        Ok(adapters.collect())
    }
}

/// The first task of some factors of which a value is not finite. Rows of a batch share tensors: one adapter that is
/// not finite would spoil the rows of all others.
pub(crate) fn not_finite(factors: &LoraFactors) -> Option<usize> {
    factors.modules.iter().flat_map(|m| [&m.a, &m.b]).find_map(|tensor| {
        let [tasks, layers, rows, columns] = tensor.dims();
        let sums: Tensor<2> = tensor.clone().reshape([tasks, layers * rows * columns]).sum_dim(1);
        sums.to_data().iter::<f32>().position(|sum| !sum.is_finite())
    })
}
