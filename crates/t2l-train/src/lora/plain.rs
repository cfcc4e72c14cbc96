//! One adapter as trainable tensors.

use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use t2l_core::{Adapter, AdapterLayout, LoraFactors, LoraScaling, ModuleFactors, Parameters};
use t2l_data::draws;

use crate::TrainError;

/// One adapter's trainable factors: `A.<module>` `[layers, rank, in]` and `B.<module>` `[layers, out, rank]`.
#[derive(Debug, Clone)]
pub struct PlainLora {
    /// Its factors.
    pub parameters: Parameters,
}

impl PlainLora {
    /// PEFT's initial values: A kaiming-uniform with a = √5, which is uniform in ±1/√in, and B zero.
    ///
    /// The same seed and name give the same values, whatever else is trained.
    pub fn new(layout: &AdapterLayout, rank: usize, seed: u64, name: &str, device: &Device) -> Self {
        let mut parameters = Parameters::default();
        let mut rng = draws(name, seed);
        for m in &layout.modules {
            let (a, b) = ([layout.layers, rank, m.in_features], [layout.layers, m.out_features, rank]);
            let bound = 1.0 / (m.in_features as f32).sqrt();
            let values: Vec<f32> = (0..a.iter().product()).map(|_| rng.random_range(-bound..bound)).collect();
            parameters.insert(format!("A.{}", m.name), Tensor::<3>::from_data(TensorData::new(values, a), device));
            parameters.insert(format!("B.{}", m.name), Tensor::<3>::zeros(b, device));
        }
        Self { parameters }
    }

    /// The factors of an adapter that was trained before.
    ///
    /// # Errors
    /// It lacks a place of the layout, touches another, or its rank or scaling is not `scaling`'s. `source` says in the
    /// error where the adapter is from.
    pub fn from_adapter(
        adapter: &Adapter,
        layout: &AdapterLayout,
        scaling: LoraScaling,
        source: &str,
    ) -> Result<Self, TrainError> {
        let wrong = |reason: String| TrainError::Adapter { source_name: source.to_owned(), reason };
        if let Some((layer, module, _)) =
            adapter.iter().find(|(layer, module, _)| *layer >= layout.layers || layout.position(module).is_none())
        {
            return Err(wrong(format!("touches layer {layer} {module}, which is not trained here")));
        }
        let mut parameters = Parameters::default();
        for m in &layout.modules {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for layer in 0..layout.layers {
                let place = format!("layer {layer} {}", m.name);
                let weights = adapter.get(layer, &m.name).ok_or_else(|| wrong(format!("{place} is missing")))?;
                let ([rank, input], [output, _]) = (weights.a.dims(), weights.b.dims());
                if (rank, input, output) != (scaling.rank, m.in_features, m.out_features) {
                    let wanted = format!("{} of {} to {}", scaling.rank, m.in_features, m.out_features);
                    return Err(wrong(format!("{place} has rank {rank} of {input} to {output}, not {wanted}")));
                }
                let found = adapter.scaling(weights).value();
                if (found - scaling.value()).abs() > 1e-6 * scaling.value().abs() {
                    return Err(wrong(format!("{place} is scaled by {found}, not {}", scaling.value())));
                }
                a.push(weights.a.clone());
                b.push(weights.b.clone());
            }
            parameters.insert(format!("A.{}", m.name), Tensor::stack::<3>(a, 0));
            parameters.insert(format!("B.{}", m.name), Tensor::stack::<3>(b, 0));
        }
        Ok(Self { parameters })
    }
}

/// The factors of some adapters, one after another: task i is `adapters[i]`.
pub(crate) fn stacked(adapters: &[&Parameters], layout: &AdapterLayout, scaling: LoraScaling) -> LoraFactors {
    let stack = |name: String| Tensor::stack(adapters.iter().map(|p| p.get::<3>(&name)).collect(), 0);
    let module = |name: &str| ModuleFactors {
        name: name.to_owned(),
        a: stack(format!("A.{name}")),
        b: stack(format!("B.{name}")),
    };
    LoraFactors { scaling, modules: layout.modules.iter().map(|m| module(&m.name)).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use t2l_core::TargetModule;

    use super::*;

    fn layout(layers: usize, widths: &[(usize, usize)]) -> AdapterLayout {
        let modules = widths.iter().enumerate();
        let modules = modules.map(|(i, &(input, output))| TargetModule::new(format!("m{i}_proj"), input, output));
        AdapterLayout { base_model: "tiny".into(), layers, modules: modules.collect() }
    }

    fn values(p: &Parameters) -> Vec<f32> {
        p.iter().flat_map(|(_, p)| p.values.to_data().iter::<f32>().collect::<Vec<_>>()).collect()
    }

    proptest! {
        /// A within ±1/√in and B zero; a name decides the values; an adapter made of them comes back.
        #[test]
        fn initial_values_are_pefts_and_adapters_come_back(
            layers in 1usize..3, rank in 1usize..4, widths in prop::collection::vec((1usize..9, 1usize..9), 1..3), seed: u64,
        ) {
            let (layout, device) = (layout(layers, &widths), Device::flex());
            let scaling = LoraScaling { alpha: 4.0, rank, use_rslora: true };
            let plain = PlainLora::new(&layout, rank, seed, "task", &device);
            for m in &layout.modules {
                let a = plain.parameters.get::<3>(&format!("A.{}", m.name));
                let b = plain.parameters.get::<3>(&format!("B.{}", m.name));
                prop_assert_eq!(a.dims(), [layers, rank, m.in_features]);
                prop_assert_eq!(b.dims(), [layers, m.out_features, rank]);
                let bound = 1.0 / (m.in_features as f32).sqrt();
                prop_assert!(a.to_data().iter::<f32>().all(|x| x.abs() <= bound));
                prop_assert!(b.to_data().iter::<f32>().all(|x| x == 0.0));
            }
            let again = PlainLora::new(&layout, rank, seed, "task", &device);
            prop_assert_eq!(values(&plain.parameters), values(&again.parameters));
            let other = PlainLora::new(&layout, rank, seed, "other task", &device);
            prop_assert_ne!(values(&plain.parameters), values(&other.parameters));

            let factors = stacked(&[&other.parameters, &plain.parameters], &layout, scaling);
            let adapter = factors.adapter(1, "tiny").expect("two tasks");
            let back = PlainLora::from_adapter(&adapter, &layout, scaling, "adapter").expect("fits");
            prop_assert_eq!(values(&plain.parameters), values(&back.parameters));
        }
    }

    #[test]
    fn adapters_of_another_shape_are_refused_by_name() {
        let device = Device::flex();
        let (small, rank) = (layout(1, &[(4, 3)]), 2);
        let scaling = LoraScaling { alpha: 4.0, rank, use_rslora: false };
        let plain = PlainLora::new(&small, rank, 0, "task", &device);
        let adapter = stacked(&[&plain.parameters], &small, scaling).adapter(0, "tiny").expect("one task");
        let refused = |layout: &AdapterLayout, scaling| {
            PlainLora::from_adapter(&adapter, layout, scaling, "my-adapter").expect_err("refused").to_string()
        };
        assert_eq!(refused(&layout(2, &[(4, 3)]), scaling), "my-adapter: layer 1 m0_proj is missing");
        assert!(refused(&layout(1, &[(5, 3)]), scaling).contains("has rank 2 of 4 to 3, not 2 of 5 to 3"));
        let rslora = LoraScaling { use_rslora: true, ..scaling };
        assert!(refused(&small, rslora).contains("is scaled by 2"));
        let mut renamed = small.clone();
        renamed.modules[0].name = "q_proj".into();
        assert!(refused(&renamed, scaling).contains("touches layer 0 m0_proj"));
    }
}
