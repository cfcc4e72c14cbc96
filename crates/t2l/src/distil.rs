//! Generated adapters that are taught to follow their descriptions.

use t2l_backbone::Backbone;
use t2l_core::LoraFactors;
use t2l_data::{PromptRenderer, user_turn};
use t2l_train::{Distillation, Distilled, Ending, Lesson, NEUTRAL_INPUTS, PlainLora, distil};

use crate::{Error, GeneratedAdapters, TextToLora};

impl TextToLora {
    /// Teaches generated adapters by context distillation to do without the description what they do with it in the prompt of
    /// `model`, one after the other. `inputs`: what the adapters are for, or anything; [`NEUTRAL_INPUTS`] where there is none;
    /// of more than the steps have room for some are drawn. `taught` hears of each.
    ///
    /// # Errors
    /// A hyperdecoder's adapters, which are for one input each; adapters that do not fit the model; inputs that it has no
    /// room for.
    pub fn distil(
        &self,
        model: &Backbone,
        mut generated: GeneratedAdapters,
        inputs: &[&str],
        settings: &Distillation,
        mut taught: impl FnMut(usize, &Distilled),
    ) -> Result<GeneratedAdapters, Error> {
        if self.reads_inputs() {
            let reason = "the checkpoint is a hyperdecoder, whose adapters are for one input each: none is distilled";
            return Err(Error::Invalid(reason.into()));
        }
        self.check_fits(model)?;
        let inputs = if inputs.is_empty() { &NEUTRAL_INPUTS } else { inputs };
        let inputs: Vec<&str> = settings.draw(inputs.len()).into_iter().map(|i| inputs[i]).collect();
        let renderer = PromptRenderer::of(model)?;
        let untold = inputs.iter().map(|input| renderer.prompt(&user_turn(None, input, &[])));
        let untold = untold.collect::<Result<Vec<_>, _>>()?;
        let layout = &self.checkpoint().hypernet.config.layout;
        let scaling = generated.factors.scaling;
        let mut factors = Vec::with_capacity(generated.len());
        for (index, description) in generated.descriptions.iter().enumerate() {
            let lesson = |(input, untold): (&&str, &Vec<u32>)| -> Result<Lesson, Error> {
                let told = renderer.prompt(&user_turn(Some(description.trim()), input, &[]))?;
                Ok(Lesson { told, untold: untold.clone() })
            };
            let lessons = inputs.iter().zip(&untold).map(lesson).collect::<Result<Vec<_>, _>>()?;
            let adapter = PlainLora::from_adapter(&generated.adapter(index).adapter, layout, scaling, description)?;
            let ending = Ending { stops: model.tokenizer.stops(), end_of_turn: renderer.end_of_turn() };
            let distilled = distil(&model.decoder, adapter, layout, scaling, &lessons, ending, settings)?;
            taught(index, &distilled);
            factors.push(distilled.factors);
        }
        if let Some(factors) = LoraFactors::joined(factors) {
            generated.factors = factors;
        }
        Ok(generated)
    }
}
