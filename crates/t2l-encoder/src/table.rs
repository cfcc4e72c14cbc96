//! Embeddings of many descriptions in one file, so that each is computed once.
//!
//! A safetensors file of three tensors over the same rows: `keys` `[n, 32]` u8, `embeddings` `[n, width]` f32 and
//! `truncated` `[n]` u8; the encoder's id stands in the metadata. A key is the SHA-256 of the encoder's id, a zero
//! byte, and the formatted description.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use t2l_core::{EncodedTexts, TextEncoder, files};

use crate::{EncoderError, format_description};

/// Texts handed to the encoder at once: enough to sort by length, few enough to report progress.
const CHUNK: usize = 512;

/// Embeddings computed between two writes while a file is filled: an interrupted run loses no more.
const SAVE_EVERY: usize = 8 * CHUNK;

/// Bytes of the longest file that is read: a million descriptions at a width of 4096.
const LONGEST: u64 = 1 << 34;

type Key = [u8; 32];

/// Embeddings of one encoder by description.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingTable {
    encoder: String,
    width: usize,
    rows: HashMap<Key, usize>,
    keys: Vec<Key>,
    values: Vec<f32>,
    truncated: Vec<bool>,
}

impl EmbeddingTable {
    /// An empty table for the encoder's embeddings.
    pub fn new(encoder: &dyn TextEncoder) -> Self {
        Self::empty(encoder.id(), encoder.width())
    }

    fn empty(encoder: &str, width: usize) -> Self {
        let encoder = encoder.to_owned();
        Self { encoder, width, rows: HashMap::new(), keys: vec![], values: vec![], truncated: vec![] }
    }

    /// The table in `path`, made by whichever encoder [`encoder`](Self::encoder) names.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn load(path: &Path) -> Result<Self, EncoderError> {
        let bytes = files::read_at_most(path, LONGEST).map_err(|e| EncoderError::io(path, e))?;
        let bad = |reason: String| EncoderError::weights(path, reason);
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let encoder = header.metadata().as_ref().and_then(|m| m.get("encoder")).cloned();
        let encoder = encoder.ok_or_else(|| bad("no encoder in the metadata".into()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let tensor = |name: &str, dtype: Dtype| -> Result<TensorView<'_>, EncoderError> {
            let missing = |_| EncoderError::MissingTensor { path: path.to_owned(), name: name.to_owned() };
            let view = file.tensor(name).map_err(missing)?;
            if view.dtype() == dtype {
                Ok(view)
            } else {
                let reason = format!("type {:?}, not {dtype:?}", view.dtype());
                Err(EncoderError::Tensor { path: path.to_owned(), name: name.to_owned(), reason })
            }
        };
        let (keys, embeddings) = (tensor("keys", Dtype::U8)?, tensor("embeddings", Dtype::F32)?);
        let truncated = tensor("truncated", Dtype::U8)?;
        let shape = |name: &str, view: &TensorView, expected: Vec<usize>| {
            let found = view.shape().to_vec();
            let error = || EncoderError::Shape { path: path.to_owned(), name: name.to_owned(), expected, found };
            Err(error())
        };
        let &[rows, width] = embeddings.shape() else { return shape("embeddings", &embeddings, vec![0, 0]) };
        if width == 0 {
            return shape("embeddings", &embeddings, vec![rows, 1]);
        }
        if keys.shape() != [rows, 32] {
            return shape("keys", &keys, vec![rows, 32]);
        }
        if truncated.shape() != [rows] {
            return shape("truncated", &truncated, vec![rows]);
        }
        let mut table = Self::empty(&encoder, width);
        table.keys = keys.data().as_chunks::<32>().0.to_vec();
        table.rows = table.keys.iter().enumerate().map(|(row, key)| (*key, row)).collect();
        table.values = embeddings.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        table.truncated = truncated.data().iter().map(|&b| b != 0).collect();
        if table.rows.len() != rows {
            return Err(bad("the same key twice".into()));
        }
        if let Some(i) = table.values.iter().position(|v| !v.is_finite()) {
            let reason = format!("row {} is not finite", i / width);
            return Err(EncoderError::Tensor { path: path.to_owned(), name: "embeddings".into(), reason });
        }
        Ok(table)
    }

    /// The table in `path` (a new one if there is no such file) with all `descriptions` in it: those that are missing
    /// are computed and the file is written anew (now and then also on the way). `progress` is told how many of the missing ones are done.
    ///
    /// # Errors
    /// A damaged file, one made by another encoder, or a description that cannot be encoded.
    pub fn fill(
        path: &Path,
        encoder: &dyn TextEncoder,
        descriptions: &[&str],
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, EncoderError> {
        let mut table = if path.exists() { Self::load(path)? } else { Self::new(encoder) };
        let added = table.compute(path, encoder, descriptions, |table, done, missing| {
            progress(done, missing);
            if done.is_multiple_of(SAVE_EVERY) { table.save(path) } else { Ok(()) }
        })?;
        if added > 0 {
            table.save(path)?;
        }
        Ok(table)
    }

    /// Computes the embeddings of those descriptions that the table lacks, and says how many these were.
    ///
    /// # Errors
    /// Another encoder than the table's, or a description that cannot be encoded (nothing of it is added).
    pub fn add(
        &mut self,
        encoder: &dyn TextEncoder,
        descriptions: &[&str],
        mut progress: impl FnMut(usize, usize),
    ) -> Result<usize, EncoderError> {
        self.compute(Path::new("embeddings"), encoder, descriptions, |_, done, missing| {
            progress(done, missing);
            Ok(())
        })
    }

    fn compute(
        &mut self,
        path: &Path,
        encoder: &dyn TextEncoder,
        descriptions: &[&str],
        mut after_chunk: impl FnMut(&Self, usize, usize) -> Result<(), EncoderError>,
    ) -> Result<usize, EncoderError> {
        if encoder.id() != self.encoder || encoder.width() != self.width {
            let expected = format!("{} ({} wide)", encoder.id(), encoder.width());
            let found = format!("{} ({} wide)", self.encoder, self.width);
            return Err(EncoderError::OtherEncoder { path: path.to_owned(), expected, found });
        }
        let mut missing: HashMap<Key, &str> = HashMap::new();
        for description in descriptions {
            let key = self.key(description);
            if !self.rows.contains_key(&key) {
                missing.insert(key, description);
            }
        }
        // By length, so that a chunk holds texts of one size; by key, so that the file does not depend on chance.
        let mut missing: Vec<(Key, &str)> = missing.into_iter().collect();
        missing.sort_by_key(|(key, text)| (text.len(), *key));
        let mut done = 0;
        for chunk in missing.chunks(CHUNK) {
            let texts: Vec<&str> = chunk.iter().map(|(_, text)| *text).collect();
            let EncodedTexts { embeddings, truncated } = encoder.encode(&texts)?;
            let values = embeddings.into_data().convert::<f32>();
            let values = values.as_slice::<f32>().map_err(|e| EncoderError::Batch { reason: format!("{e:?}") })?;
            for (((key, _), row), truncated) in chunk.iter().zip(values.chunks(self.width)).zip(truncated) {
                self.rows.insert(*key, self.keys.len());
                self.keys.push(*key);
                self.values.extend_from_slice(row);
                self.truncated.push(truncated);
            }
            done += chunk.len();
            after_chunk(self, done, missing.len())?;
        }
        Ok(missing.len())
    }

    /// A table of these descriptions alone, each with its vector of another table behind its own.
    ///
    /// # Errors
    /// A description that either table lacks.
    pub fn beside(&self, other: &Self, descriptions: &[&str]) -> Result<Self, EncoderError> {
        let mut wider = Self::empty(&format!("{} and {}", self.encoder, other.encoder), self.width + other.width);
        for description in descriptions {
            let key = wider.key(description);
            if wider.rows.contains_key(&key) {
                continue;
            }
            let missing = || EncoderError::NotStored { description: (*description).into() };
            wider.values.extend_from_slice(self.get(description).ok_or_else(missing)?);
            wider.values.extend_from_slice(other.get(description).ok_or_else(missing)?);
            wider.rows.insert(key, wider.keys.len());
            wider.keys.push(key);
            let cut = |table: &Self| table.truncated(description).unwrap_or_default();
            wider.truncated.push(cut(self) || cut(other));
        }
        Ok(wider)
    }

    /// Writes the table; a reader sees the old file or the new one, never half of it.
    ///
    /// # Errors
    /// The system's refusal to write.
    pub fn save(&self, path: &Path) -> Result<(), EncoderError> {
        let io = |e| EncoderError::io(path, e);
        let rows = self.keys.len();
        let truncated: Vec<u8> = self.truncated.iter().map(|&t| u8::from(t)).collect();
        let values: Vec<u8> = self.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view =
            |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).map_err(|e| EncoderError::weights(path, e));
        let tensors = [
            ("keys", view(Dtype::U8, vec![rows, 32], self.keys.as_flattened())?),
            ("embeddings", view(Dtype::F32, vec![rows, self.width], &values)?),
            ("truncated", view(Dtype::U8, vec![rows], &truncated)?),
        ];
        let metadata = HashMap::from([("encoder".to_owned(), self.encoder.clone())]);
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| EncoderError::weights(path, e))?;
        std::fs::create_dir_all(files::folder_of(path)).map_err(io)?;
        files::write_whole(path, &bytes).map_err(io)
    }

    /// Id of the encoder that made the embeddings.
    pub fn encoder(&self) -> &str {
        &self.encoder
    }

    /// Width of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of embeddings.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The embedding of a description, `width` values, if the table has it.
    pub fn get(&self, description: &str) -> Option<&[f32]> {
        let row = self.row(description)?;
        self.values.get(row * self.width..(row + 1) * self.width)
    }

    /// Whether the description was cut at the encoder's token limit.
    pub fn truncated(&self, description: &str) -> Option<bool> {
        self.truncated.get(self.row(description)?).copied()
    }

    /// The embeddings of some descriptions: `[descriptions, width]`.
    ///
    /// # Errors
    /// The first description that the table lacks.
    pub fn embeddings(&self, descriptions: &[&str], device: &Device) -> Result<Tensor<2>, EncoderError> {
        let mut values = Vec::new();
        for description in descriptions {
            let row = self.get(description);
            values
                .extend_from_slice(row.ok_or_else(|| EncoderError::NotStored { description: (*description).into() })?);
        }
        Ok(Tensor::from_data(TensorData::new(values, [descriptions.len(), self.width]), device))
    }

    fn row(&self, description: &str) -> Option<usize> {
        self.rows.get(&self.key(description)).copied()
    }

    fn key(&self, description: &str) -> Key {
        Sha256::new()
            .chain_update(self.encoder.as_bytes())
            .chain_update([0])
            .chain_update(format_description(description).as_bytes())
            .finalize()
            .into()
    }
}
