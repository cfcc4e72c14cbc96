//! From a loss over labels to gradients: with everything the forward pass computed kept in memory, or a layer at a time.

use burn::tensor::{Gradients, Tensor};
use t2l_backbone::Decoder;
use t2l_core::{AdapterBatch, InputDropout, RowFactors};
use t2l_data::TrainBatch;

use crate::loss::{LossConfig, label_losses, losses_after, noisy_embeddings};
use crate::noise::{Noise, Purpose};
use crate::{StepSeed, TrainError};

/// One training pass of a batch through a frozen decoder.
pub(crate) struct TrainingPass<'a> {
    /// [`Decoder::for_training`].
    pub decoder: &'a Decoder,
    /// The rows.
    pub batch: &'a TrainBatch,
    /// Noise, dropout, smoothing, and which of the two ways back is taken.
    pub loss: &'a LossConfig,
    /// What noise and dropout are drawn from; without it there is neither.
    pub seed: Option<StepSeed>,
    /// Which row of the whole batch the first row here is, where several processes share one.
    pub first_row: usize,
}

impl TrainingPass<'_> {
    /// Gradients of `objective(label losses) + also` for whatever the factors in `adapters` were computed from.
    ///
    /// # Errors
    /// Adapters that do not fit the decoder or the batch.
    pub fn gradients(
        &self,
        mut adapters: AdapterBatch,
        also: Option<Tensor<1>>,
        objective: impl FnOnce(Tensor<1>) -> Tensor<1>,
    ) -> Result<Gradients, TrainError> {
        adapters.input_dropout = self
            .stream(Purpose::AdapterInput, self.loss.lora_dropout > 0.0)
            .map(|mut n| InputDropout { p: self.loss.lora_dropout, seed: n.seed(), first_row: self.first_row });
        if self.loss.gradient_checkpointing {
            return self.layer_by_layer(&adapters, also, objective);
        }
        let losses =
            label_losses(self.decoder, self.batch, &adapters, self.loss.label_smoothing, self.embedding_noise())?;
        Ok(plus(also, objective(losses)).backward())
    }

    /// Forward without a graph, keeping only what goes into each layer. Then from the last layer down: the layer again, now
    /// with a graph, and back through it, which gives the gradients of its factors and of its input. What is left is a
    /// sum of factors times their gradients, whose gradients are those wanted.
    fn layer_by_layer(
        &self,
        adapters: &AdapterBatch,
        mut also: Option<Tensor<1>>,
        objective: impl FnOnce(Tensor<1>) -> Tensor<1>,
    ) -> Result<Gradients, TrainError> {
        let pass = self.decoder.layer_by_layer(self.batch.width, adapters)?;
        let worn = adapters.map(|w| RowFactors { a: constant(&w.a), b: constant(&w.b), scaling: w.scaling.clone() });
        let mut stream = noisy_embeddings(self.decoder, self.batch, self.embedding_noise());
        let mut inputs = Vec::new();
        for layer in pass.layers() {
            inputs.push(stream.clone());
            stream = layer.forward(stream, &worn);
        }

        let last = leaf(&stream);
        let hidden = self.decoder.final_norm(last.clone());
        let losses = losses_after(self.decoder, hidden, self.batch, self.loss.label_smoothing);
        let mut gradient = gradient_of(&last, &mut objective(losses).backward());
        for (layer, input) in pass.layers().rev().zip(inputs.into_iter().rev()) {
            let input = leaf(&input);
            let factors = worn.layer(layer.number());
            let factors = factors.map(|w| RowFactors { a: leaf(&w.a), b: leaf(&w.b), scaling: w.scaling.clone() });
            let output = layer.forward(input.clone(), &factors);
            let mut gradients = (output * Tensor::from_inner(gradient)).sum().backward();
            gradient = gradient_of(&input, &mut gradients);
            for (number, module, ours) in factors.iter() {
                let Some(theirs) = adapters.get(number, module) else { continue };
                for (ours, theirs) in [(&ours.a, &theirs.a), (&ours.b, &theirs.b)] {
                    let gradient = Tensor::from_inner(gradient_of(ours, &mut gradients));
                    also = Some(plus(also, (theirs.clone() * gradient).sum()));
                }
            }
        }
        // Without an adapter anywhere there is nothing to differentiate.
        Ok(also.unwrap_or_else(|| Tensor::zeros([1], &self.decoder.device())).backward())
    }

    fn embedding_noise(&self) -> Option<(f64, Noise)> {
        let mut noise = self.stream(Purpose::Neftune, self.loss.neftune_alpha > 0.0)?;
        noise.skip(self.first_row * self.batch.width * self.decoder.config().hidden_size);
        Some((self.loss.neftune_alpha, noise))
    }

    fn stream(&self, purpose: Purpose, wanted: bool) -> Option<Noise> {
        self.seed.filter(|_| wanted).map(|s| Noise::of(s, purpose))
    }
}

fn plus(also: Option<Tensor<1>>, term: Tensor<1>) -> Tensor<1> {
    match also {
        Some(also) => also + term,
        None => term,
    }
}

/// The same values without their history.
fn constant<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.clone().inner())
}

/// The same values as the beginning of a graph.
fn leaf<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    constant(x).require_grad()
}

/// The gradient of a leaf; zeros where none arrived.
fn gradient_of<const D: usize>(leaf: &Tensor<D>, gradients: &mut Gradients) -> Tensor<D> {
    leaf.grad_remove(gradients).unwrap_or_else(|| leaf.clone().inner().zeros_like())
}
