//! Which adapter, or none, each row of a batch wears.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::{Adapter, AdapterLayout, LoraFactors};

/// The factors of all rows at one place. Rows without an adapter have zeros; smaller ranks are padded with zeros.
#[derive(Debug, Clone)]
pub struct RowFactors {
    /// `A`: `[rows, rank, in]`.
    pub a: Tensor<3>,
    /// `B`: `[rows, out, rank]`.
    pub b: Tensor<3>,
    /// Scaling of each row: `[rows, 1, 1]`.
    pub scaling: Tensor<3>,
}

/// Dropout on the input of `A` while training, drawn from a seed that the trainer owns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputDropout {
    /// Probability that an input value is dropped.
    pub p: f64,
    /// Seed of this forward pass; each place derives its own stream from it.
    pub seed: u64,
    /// Which row of the whole batch the first row here is: a share of a batch drops what the batch drops there.
    pub first_row: usize,
}

impl InputDropout {
    /// Whether the `index`-th input value at `place` is dropped. A counter-based generator (SplitMix64's finaliser):
    /// the same on every backend, in any order, without state.
    pub fn drops(&self, place: u64, index: u64) -> bool {
        let mut z = self.seed.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15))
            ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 32) as f64) < self.p * (1u64 << 32) as f64
    }
}

/// An adapter that does not fit the model or the batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// A row refers to an adapter that was not given.
    #[error("row {row} wants adapter {adapter}, only {given} were given")]
    NoSuchAdapter {
        /// The row.
        row: usize,
        /// Index it asks for.
        adapter: usize,
        /// How many there are.
        given: usize,
    },
    /// A batch of another size.
    #[error("adapters for {found} rows do not fit a batch of {expected}")]
    Rows {
        /// Rows of the batch.
        expected: usize,
        /// Rows of the adapters.
        found: usize,
    },
    /// The model has no such layer.
    #[error("the adapter touches layer {layer}, the model has {layers}")]
    NoSuchLayer {
        /// Layer touched.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// The model has no such module.
    #[error("the adapter touches module {module:?}, which the model does not have")]
    NoSuchModule {
        /// Module touched.
        module: String,
    },
    /// Factors of the wrong shape.
    #[error("layer {layer} {module}: A is {a:?} and B is {b:?}, the module maps {in_features} to {out_features}")]
    Shape {
        /// Layer.
        layer: usize,
        /// Module.
        module: String,
        /// Shape of A.
        a: Vec<usize>,
        /// Shape of B.
        b: Vec<usize>,
        /// Input width of the module.
        in_features: usize,
        /// Output width of the module.
        out_features: usize,
    },
}

/// The adapters of a batch, row by row: the only shape that a backbone takes.
#[derive(Debug, Clone)]
pub struct AdapterBatch {
    rows: usize,
    places: BTreeMap<usize, BTreeMap<String, RowFactors>>,
    /// Dropout on the adapters' inputs; `None` at inference.
    pub input_dropout: Option<InputDropout>,
}

impl AdapterBatch {
    /// A batch in which no row wears an adapter.
    pub fn none(rows: usize) -> Self {
        Self { rows, places: BTreeMap::new(), input_dropout: None }
    }

    /// Row i wears task i of the factors. Gradients flow back into the factors.
    pub fn from_factors(factors: &LoraFactors) -> Self {
        let rows = factors.tasks();
        let mut batch = Self::none(rows);
        for m in &factors.modules {
            let scaling = Tensor::full([rows, 1, 1], factors.scaling.value(), &m.a.device().inner());
            for layer in 0..factors.layers() {
                let factors = RowFactors {
                    a: m.a.clone().narrow(1, layer, 1).squeeze_dim(1),
                    b: m.b.clone().narrow(1, layer, 1).squeeze_dim(1),
                    scaling: scaling.clone(),
                };
                batch.places.entry(layer).or_default().insert(m.name.clone(), factors);
            }
        }
        batch
    }

    /// Row i wears task `rows[i]` of the factors, or none.
    ///
    /// # Errors
    /// A task index out of range.
    pub fn select_factors(factors: &LoraFactors, rows: &[Option<usize>]) -> Result<Self, FitError> {
        check_rows(rows, factors.tasks())?;
        let mut batch = Self::none(rows.len());
        let Some(first) = factors.modules.first() else { return Ok(batch) };
        let device = first.a.device();
        let index: Vec<i64> = rows.iter().map(|r| r.unwrap_or(0) as i64).collect();
        let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &device);
        let scaling =
            scaling_tensor(rows.iter().map(|r| r.map_or(0.0, |_| factors.scaling.value() as f32)).collect(), &device);
        for m in &factors.modules {
            let (a, b) = (m.a.clone().select(0, index.clone()), m.b.clone().select(0, index.clone()));
            for layer in 0..factors.layers() {
                let factors = RowFactors {
                    a: a.clone().narrow(1, layer, 1).squeeze_dim(1),
                    b: b.clone().narrow(1, layer, 1).squeeze_dim(1),
                    scaling: scaling.clone(),
                };
                batch.places.entry(layer).or_default().insert(m.name.clone(), factors);
            }
        }
        Ok(batch)
    }

    /// Row i wears `adapters[rows[i]]`, or none. Ranks may differ.
    ///
    /// # Errors
    /// An adapter index out of range, or adapters whose shapes disagree at a place.
    pub fn from_adapters(adapters: &[&Adapter], rows: &[Option<usize>], device: &Device) -> Result<Self, FitError> {
        check_rows(rows, adapters.len())?;
        let mut batch = Self::none(rows.len());
        let mut places: BTreeMap<(usize, &str), (usize, usize, usize)> = BTreeMap::new();
        for adapter in rows.iter().flatten().map(|&i| adapters[i]) {
            for (layer, module, w) in adapter.iter() {
                let ([rank, input], [output, rank_b]) = (w.a.dims(), w.b.dims());
                let place = places.entry((layer, module)).or_insert((0, input, output));
                if rank != rank_b || place.1 != input || place.2 != output {
                    return Err(FitError::Shape {
                        layer,
                        module: module.to_owned(),
                        a: w.a.dims().to_vec(),
                        b: w.b.dims().to_vec(),
                        in_features: place.1,
                        out_features: place.2,
                    });
                }
                place.0 = place.0.max(rank);
            }
        }
        for ((layer, module), (rank, input, output)) in places {
            let mut a = Vec::with_capacity(rows.len());
            let mut b = Vec::with_capacity(rows.len());
            let mut scaling = Vec::with_capacity(rows.len());
            for row in rows {
                let weights = row.and_then(|i| adapters[i].get(layer, module).map(|w| (adapters[i], w)));
                scaling.push(weights.map_or(0.0, |(adapter, w)| adapter.scaling(w).value() as f32));
                let row_a = weights.map(|(_, w)| w.a.clone().to_device(device));
                let row_b = weights.map(|(_, w)| w.b.clone().to_device(device));
                a.push(pad(row_a, [rank, input], device).unsqueeze::<3>());
                b.push(pad(row_b, [output, rank], device).unsqueeze::<3>());
            }
            let factors =
                RowFactors { a: Tensor::cat(a, 0), b: Tensor::cat(b, 0), scaling: scaling_tensor(scaling, device) };
            batch.places.entry(layer).or_default().insert(module.to_owned(), factors);
        }
        Ok(batch)
    }

    /// A batch whose row i is row `rows[i]` of this one.
    ///
    /// # Panics
    /// A row that this batch does not have.
    pub fn select(&self, rows: &[usize]) -> Self {
        let Some(first) = self.places.values().flat_map(BTreeMap::values).next() else { return Self::none(rows.len()) };
        let index: Vec<i64> = rows.iter().map(|&r| r as i64).collect();
        let index = Tensor::from_data(TensorData::new(index, [rows.len()]), &first.a.device());
        let of_rows = |x: &Tensor<3>| x.clone().select(0, index.clone());
        let chosen = |f: &RowFactors| RowFactors { a: of_rows(&f.a), b: of_rows(&f.b), scaling: of_rows(&f.scaling) };
        let modules = |m: &BTreeMap<String, RowFactors>| m.iter().map(|(name, f)| (name.clone(), chosen(f))).collect();
        let places = self.places.iter().map(|(&layer, m)| (layer, modules(m))).collect();
        Self { rows: rows.len(), places, input_dropout: self.input_dropout }
    }

    /// The same places with other factors.
    #[must_use]
    pub fn map(&self, f: impl Fn(&RowFactors) -> RowFactors) -> Self {
        let modules = |m: &BTreeMap<String, RowFactors>| m.iter().map(|(name, w)| (name.clone(), f(w))).collect();
        let places = self.places.iter().map(|(&layer, m)| (layer, modules(m))).collect();
        Self { rows: self.rows, places, input_dropout: self.input_dropout }
    }

    /// The places of one layer alone.
    #[must_use]
    pub fn layer(&self, layer: usize) -> Self {
        let places = self.places.get(&layer).map(|m| (layer, m.clone())).into_iter().collect();
        Self { rows: self.rows, places, input_dropout: self.input_dropout }
    }

    /// Every place in order: layer, module, factors.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &str, &RowFactors)> {
        self.places.iter().flat_map(|(&layer, m)| m.iter().map(move |(name, w)| (layer, name.as_str(), w)))
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The factors of all rows at a place, if any row has some there.
    pub fn get(&self, layer: usize, module: &str) -> Option<&RowFactors> {
        self.places.get(&layer)?.get(module)
    }

    /// Whether no row wears anything.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Checks that everything fits a model with `layers` layers of `modules` and a batch of `rows` rows.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self, rows: usize, layout: &AdapterLayout) -> Result<(), FitError> {
        if self.rows != rows {
            return Err(FitError::Rows { expected: rows, found: self.rows });
        }
        for (&layer, modules) in &self.places {
            if layer >= layout.layers {
                return Err(FitError::NoSuchLayer { layer, layers: layout.layers });
            }
            for (module, w) in modules {
                let Some(target) = layout.position(module).map(|i| &layout.modules[i]) else {
                    return Err(FitError::NoSuchModule { module: module.clone() });
                };
                let ([_, rank, input], [_, output, rank_b]) = (w.a.dims(), w.b.dims());
                if rank != rank_b || input != target.in_features || output != target.out_features {
                    return Err(FitError::Shape {
                        layer,
                        module: module.clone(),
                        a: vec![rank, input],
                        b: vec![output, rank_b],
                        in_features: target.in_features,
                        out_features: target.out_features,
                    });
                }
            }
        }
        Ok(())
    }
}

fn check_rows(rows: &[Option<usize>], given: usize) -> Result<(), FitError> {
    match rows.iter().enumerate().find_map(|(row, r)| r.filter(|&i| i >= given).map(|i| (row, i))) {
        Some((row, adapter)) => Err(FitError::NoSuchAdapter { row, adapter, given }),
        None => Ok(()),
    }
}

fn scaling_tensor(values: Vec<f32>, device: &Device) -> Tensor<3> {
    let rows = values.len();
    Tensor::from_data(TensorData::new(values, [rows, 1, 1]), device)
}

/// Pads a matrix with zeros on the right and at the bottom to `shape`; none at all is all zeros.
fn pad(matrix: Option<Tensor<2>>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    let Some(matrix) = matrix else { return Tensor::zeros(shape, device) };
    let [rows, cols] = matrix.dims();
    if [rows, cols] == shape {
        return matrix;
    }
    Tensor::zeros(shape, device).slice_assign([0..rows, 0..cols], matrix)
}
