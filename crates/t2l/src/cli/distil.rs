//! `--distil` of `generate`, `ask` and `chat`: generated adapters are taught to follow their descriptions.

use std::time::Instant;

use anyhow::bail;
use t2l::backbone::Backbone;
use t2l::core::counted;
use t2l::train::Distillation;
use t2l::{GeneratedAdapters, TextToLora};

use super::args::DistilArgs;
use super::generate::read_lines;

/// What `--distil` asks for: steps, and inputs to learn from.
pub struct Lessons {
    steps: usize,
    inputs: Vec<String>,
}

impl Lessons {
    /// None where nothing is to be learned. Inputs are read here, before anything is loaded.
    pub fn of(args: &DistilArgs) -> anyhow::Result<Option<Self>> {
        let Some(steps) = args.distil else { return Ok(None) };
        let mut inputs = Vec::new();
        if let Some(file) = &args.inputs {
            inputs.extend(read_lines(file)?);
            if inputs.is_empty() {
                bail!("{}: has no input, one a line", file.display());
            }
        }
        Ok(Some(Self { steps, inputs }))
    }

    /// Refuses a checkpoint whose adapters cannot be taught, before a base model is loaded for it.
    pub fn check(&self, t2l: &TextToLora) -> anyhow::Result<()> {
        if t2l.reads_inputs() {
            bail!("--distil: the checkpoint is a hyperdecoder, whose adapters are for one input each");
        }
        Ok(())
    }

    /// The adapters after their lessons.
    pub fn teach(
        &self,
        t2l: &TextToLora,
        model: &Backbone,
        generated: GeneratedAdapters,
    ) -> anyhow::Result<GeneratedAdapters> {
        let inputs: Vec<&str> = self.inputs.iter().map(String::as_str).collect();
        let settings = Distillation { steps: self.steps, ..Distillation::default() };
        let mut started = Instant::now();
        Ok(t2l.distil(model, generated, &inputs, &settings, |_, distilled| {
            let (steps, seconds) = (counted(self.steps, "step"), started.elapsed().as_secs_f64());
            let divergence = match distilled.divergences.as_slice() {
                [first, .., last] => format!("{first:.2} nats a token in the first step, {last:.2} in the last"),
                one => format!("{:.2} nats a token", one.iter().sum::<f64>()),
            };
            eprintln!("distilled in {steps}, {seconds:.1} s; divergence from the told model: {divergence}");
            started = Instant::now();
        })?)
    }
}
