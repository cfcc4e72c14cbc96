//! `t2l train multitask`: one adapter for all tasks.

use t2l_train::{Adapters, HeldOutRow, TrainConfig};

use super::ground::{Ground, NOTHING_TO_VALIDATE_ON, scaling};
use super::lora::initial;
use crate::Error;

pub(super) fn prepare(config: &TrainConfig, ground: &Ground, tell: &mut dyn FnMut(&str)) -> Result<Adapters, Error> {
    let corpus = ground.corpus(config, tell)?;
    let mut held_out = Vec::new();
    for (held, examples) in ground.held_out(config)? {
        let rows = examples.into_iter();
        held_out.extend(rows.map(|v| HeldOutRow { example: v.example, adapter: 0, group: held.group.to_owned() }));
    }
    if config.run.validate_every > 0 && held_out.is_empty() {
        tell(NOTHING_TO_VALIDATE_ON);
    }
    Ok(Adapters {
        names: vec![String::new()],
        adapters: vec![initial(config, "", ground)?],
        adapter_of_task: vec![0; ground.trained().count()],
        layout: ground.layout.clone(),
        scaling: scaling(config),
        decoder: ground.decoder(config),
        plain_decoder: ground.backbone.decoder.clone(),
        corpus,
        sampler: config.sampler(),
        loss: config.loss.clone(),
        held_out,
        judged_by: vec![config.judged_by(&["unseen/nll", "seen/nll"])],
    })
}
