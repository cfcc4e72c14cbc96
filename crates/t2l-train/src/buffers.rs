//! What a hypernetwork's run has to remember besides trained parameters: codes that averages move, and what of its start must
//! still be the same: offsets, and what instruction effects were looked at with.

use burn::tensor::{Tensor, TensorData};
use serde_json::{Map, Value, json};
use t2l_hypernet::{Hypernet, Offset};

use crate::files;

/// Prefix of the tensors that training moves without gradients.
const CODES: &str = "task_encoder.";

/// A sampler's state, with what has to be remembered where there is something.
pub(crate) fn position(sampler: Value, hypernet: &Hypernet) -> Value {
    let (codes, offsets, instructed) = (codes(hypernet), offsets_digest(hypernet), instructed_digest(hypernet));
    if codes.is_empty() && offsets.is_none() && instructed.is_none() {
        return sampler;
    }
    json!({ "sampler": sampler, "codes": codes, "offsets": offsets, "instructed": instructed })
}

/// Puts the codes of a position back and compares the rest; gives the sampler's state.
pub(crate) fn restore<'a>(position: &'a Value, hypernet: &mut Hypernet) -> Result<&'a Value, String> {
    let (offsets, instructed) = (offsets_digest(hypernet), instructed_digest(hypernet));
    let names: Vec<String> = codes(hypernet).into_iter().map(|(name, _)| name).collect();
    if names.is_empty() && offsets.is_none() && instructed.is_none() {
        return Ok(position);
    }
    if position["instructed"].as_str() != instructed.as_deref() {
        return Err("measures instruction effects with another adapter: run.start_from has changed".into());
    }
    if position["offsets"].as_str() != offsets.as_deref() {
        return Err("was trained on top of another adapter: hypernet.multitask has changed".into());
    }
    for (name, p) in hypernet.buffers.iter_mut().filter(|(name, _)| names.iter().any(|n| n == name)) {
        let values: Option<Vec<f32>> = position["codes"][name]
            .as_array()
            .and_then(|all| all.iter().map(|v| v.as_f64().map(|v| v as f32)).collect());
        let count = p.shape.iter().product::<usize>();
        let values = values.filter(|v| v.len() == count).ok_or_else(|| format!("has no values of {name}"))?;
        p.values = Tensor::from_data(TensorData::new(values, [count]), &p.values.device());
    }
    Ok(&position["sampler"])
}

fn codes(hypernet: &Hypernet) -> Map<String, Value> {
    let moved = hypernet.buffers.iter().filter(|(name, _)| name.starts_with(CODES));
    moved.map(|(name, p)| (name.to_owned(), json!(p.values.to_data().iter::<f32>().collect::<Vec<_>>()))).collect()
}

/// Digest of offsets that are not trained, and so stand in no state file.
fn offsets_digest(hypernet: &Hypernet) -> Option<String> {
    if hypernet.config.offset != Offset::Frozen {
        return None;
    }
    Some(digest(hypernet, "AB_offset."))
}

/// Digest of what instruction effects are looked at with, which comes from the run's start.
fn instructed_digest(hypernet: &Hypernet) -> Option<String> {
    hypernet.config.instructed.map(|_| digest(hypernet, "instructed."))
}

/// Digest of the values that are not trained and whose names begin so.
fn digest(hypernet: &Hypernet, prefix: &str) -> String {
    let named = hypernet.buffers.iter().filter(|(name, _)| name.starts_with(prefix));
    let bytes = |data: TensorData| data.iter::<f32>().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    files::digest(named.map(|(_, p)| bytes(p.values.to_data())))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use t2l_core::{AdapterLayout, LoraFactors, LoraScaling, ModuleFactors, TargetModule};
    use t2l_hypernet::{Arch, CodeUse, HypernetConfig, Init, InstructedStart, TaskEncoder};

    use super::*;
    use crate::{PlainLora, set_offsets};

    fn hypernet(task_encoder: TaskEncoder, offset: Offset, init: Init) -> Hypernet {
        let layout =
            AdapterLayout { base_model: "tiny".into(), layers: 1, modules: vec![TargetModule::new("q_proj", 4, 4)] };
        let scaling = LoraScaling { alpha: 1.0, rank: 1, use_rslora: false };
        let config = HypernetConfig {
            task_encoder,
            offset,
            latent: 4,
            head_in: 4,
            ..HypernetConfig::new(Arch::L, layout, scaling, 3)
        };
        Hypernet::new(config, init, 1, &Device::flex()).expect("a hypernetwork")
    }

    fn values(hypernet: &Hypernet) -> Vec<u32> {
        let all = hypernet.buffers.iter();
        all.flat_map(|(_, p)| p.values.to_data().iter::<f32>().map(f32::to_bits).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn codes_come_back_to_the_bit() {
        let fresh = || hypernet(TaskEncoder::Vq, Offset::Trainable, Init::Ours);
        let mut moved = fresh();
        let z = Tensor::from_data([[0.1f32, -2.7], [3.3, 0.01]], &Device::flex());
        for codes in [vec![3, 5], vec![3, 3], vec![31, 0]] {
            moved.learn_codes(&CodeUse { z: z.clone(), codes });
        }
        // As a state file holds it: as text.
        let text = position(json!({ "at": 7 }), &moved).to_string();
        let read: Value = serde_json::from_str(&text).expect("JSON");
        let mut resumed = fresh();
        assert_ne!(values(&resumed), values(&moved));
        assert_eq!(restore(&read, &mut resumed), Ok(&json!({ "at": 7 })));
        assert_eq!(values(&resumed), values(&moved));
        assert!(restore(&json!({ "at": 7 }), &mut fresh()).expect_err("refused").contains("task_encoder"));
    }

    #[test]
    fn a_run_does_not_go_on_with_effects_under_another_adapter() {
        let told = |strength: f64| {
            let layout = AdapterLayout {
                base_model: "tiny".into(),
                layers: 1,
                modules: vec![TargetModule::new("v_proj", 4, 4)],
            };
            let scaling = LoraScaling { alpha: 1.0, rank: 2, use_rslora: false };
            let config = HypernetConfig { latent: 4, head_in: 4, ..HypernetConfig::new(Arch::L, layout, scaling, 3) };
            let mut hypernet = Hypernet::new(config, Init::Ours, 1, &Device::flex()).expect("a hypernetwork");
            let worn = ModuleFactors {
                name: "v_proj".into(),
                a: Tensor::ones([1, 1, 2, 4], &Device::flex()),
                b: Tensor::full([1, 1, 4, 2], strength, &Device::flex()),
            };
            let worn = LoraFactors { scaling, modules: vec![worn] };
            let rows = Tensor::ones([1, 4], &Device::flex());
            hypernet.instruct(InstructedStart { rows, scales: vec![1.0], gate: 0.5, worn }).expect("takes effects");
            hypernet
        };
        let at = position(json!(4), &told(0.5));
        assert_eq!(restore(&at, &mut told(0.5)), Ok(&json!(4)));
        assert!(restore(&at, &mut told(0.25)).expect_err("refused").contains("run.start_from"));
    }

    #[test]
    fn a_run_does_not_go_on_above_another_adapter() {
        let above = |seed: u64| {
            let mut hypernet = hypernet(TaskEncoder::Linear, Offset::Frozen, Init::Zero);
            let lora = PlainLora::new(&hypernet.config.layout, 1, seed, "", &Device::flex());
            set_offsets(&mut hypernet, &lora).expect("fits");
            hypernet
        };
        let at = position(json!(4), &above(1));
        assert_eq!(restore(&at, &mut above(1)), Ok(&json!(4)));
        assert!(restore(&at, &mut above(2)).expect_err("refused").contains("hypernet.multitask"));
        // Where there is nothing to remember, a position is the sampler's.
        let mut plain = hypernet(TaskEncoder::Linear, Offset::Trainable, Init::Ours);
        assert_eq!(position(json!(4), &plain), json!(4));
        assert_eq!(restore(&json!(4), &mut plain), Ok(&json!(4)));
    }
}
