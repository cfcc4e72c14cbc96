//! Copying: what a description quotes, said louder by the adapter whatever the words are.
//!
//! Which words a task is to be answered with a hypernetwork reads in the base model's own embeddings
//! (`quoted_words`), but the map from a word to the update that makes it likely it would have to learn for every word
//! apart. The base model itself has such a map. What attention brings to a position is a mean of values through the
//! output projection O, so one direction `Oᵀ·e` added to all of them adds `O·Oᵀ·e` to the stream, which lies
//! towards e. In the last layers one rank of `v_proj` does that, where e is the sum of the embeddings of the quoted
//! words' tokens: its B is `Oᵀ·e` times a trained gate, its A a row whose product with any input is about constant at
//! the start, and trained. That the stream lying towards e makes the words likelier holds where the output layer is the
//! embeddings.

use burn::tensor::Tensor;
use t2l_core::ModuleFactors;

use crate::config::{Copying, V_PROJ};
use crate::forward::Net;
use crate::{Hypernet, HypernetError};

const ROWS: &str = "copying.A";
const GATE: &str = "copying.gate";
const WORDS: &str = "copying.words_to_B";

/// What copying starts from, of the base model.
#[derive(Debug, Clone)]
pub struct CopyingStart {
    /// A's row of each layer: `[layers, in]`.
    pub rows: Tensor<2>,
    /// The map from the vector of the quoted words to B's column: `[layers, out, words]`. Not trained.
    pub words_to_b: Tensor<3>,
    /// What every gate is at first.
    pub gate: f64,
}

impl Hypernet {
    /// Gives the last rank of `v_proj` in the last layers, as many as `start` is for, to the words that a description
    /// quotes; what that rank did there is lost.
    ///
    /// # Errors
    /// A hypernetwork that cannot copy, or a start of other sizes.
    pub fn copy_words(&mut self, start: CopyingStart) -> Result<(), HypernetError> {
        let [layers, output, words] = start.words_to_b.dims();
        let mut config = self.config.clone();
        config.copying = Some(Copying { layers, words });
        config.check()?;
        let module = config.values_module().map(|m| &config.layout.modules[m]);
        let fits = module.is_some_and(|m| m.out_features == output && start.rows.dims() == [layers, m.in_features]);
        if !fits {
            let value = format!("{:?} and {:?}", start.rows.dims(), start.words_to_b.dims());
            return Err(HypernetError::Config { key: "copying", value, reason: "does not fit the module's sizes" });
        }
        let device = start.rows.device();
        self.parameters.insert(ROWS, start.rows);
        self.parameters.insert(format!("{GATE}.weight"), Tensor::<2>::zeros([layers, config.task_width()], &device));
        self.parameters.insert(format!("{GATE}.bias"), Tensor::<1>::full([layers], start.gate, &device));
        self.buffers.insert(WORDS, start.words_to_b);
        self.config = config;
        Ok(())
    }

    /// Copies as another hypernetwork of the same sizes does.
    pub(crate) fn copy_words_as(&mut self, other: &Self) {
        self.take(other, "copying.");
        self.config.copying = other.config.copying;
    }

    /// Takes another's tensors whose names begin so.
    pub(crate) fn take(&mut self, other: &Self, prefix: &str) {
        for (from, to) in [(&other.parameters, &mut self.parameters), (&other.buffers, &mut self.buffers)] {
            for (name, p) in from.iter().filter(|(name, _)| name.starts_with(prefix)) {
                to.insert_like(name, p);
            }
        }
    }
}

impl Net<'_> {
    /// Puts the quoted words into the last rank of the last layers. `tasks`: what is read of the task
    /// embeddings, `encoded`: `[n, c]`.
    pub(crate) fn copy_words(
        &self,
        copying: Copying,
        modules: &mut [ModuleFactors],
        tasks: Tensor<2>,
        encoded: Tensor<2>,
    ) {
        let Copying { layers, words } = copying;
        let Some(m) = modules.iter_mut().find(|m| m.name == V_PROJ) else { return };
        let ([n, all, rank, input], output) = (m.a.dims(), m.b.dims()[2]);
        let quoted = tasks.clone().narrow(1, tasks.dims()[1] - words, words);
        let to_b = self.get::<3>(WORDS).reshape([layers * output, words]);
        let gates = self.linear(GATE, encoded).reshape([n, layers, 1, 1]);
        let b = quoted.matmul(to_b.transpose()).reshape([n, layers, output, 1]) * gates;
        let a = self.get::<2>(ROWS).reshape([1, layers, 1, input]).expand([n, layers, 1, input]);
        m.a = with_rank(m.a.clone(), a, all - layers, rank - 1, 2);
        m.b = with_rank(m.b.clone(), b, all - layers, rank - 1, 3);
    }
}

/// `factor` with one of its ranks, from a layer on, replaced by `one`. `ranks`: the dimension of the ranks.
pub(crate) fn with_rank(factor: Tensor<4>, one: Tensor<4>, first: usize, rank: usize, ranks: usize) -> Tensor<4> {
    let (layers, all) = (one.dims()[1], factor.dims()[ranks]);
    let within = factor.clone().narrow(1, first, layers);
    let mut parts = vec![one];
    if rank > 0 {
        parts.insert(0, within.clone().narrow(ranks, 0, rank));
    }
    if rank + 1 < all {
        parts.push(within.narrow(ranks, rank + 1, all - rank - 1));
    }
    let replaced = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, ranks) };
    if first == 0 { replaced } else { Tensor::cat(vec![factor.narrow(1, 0, first), replaced], 1) }
}
