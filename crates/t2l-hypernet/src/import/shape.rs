//! The shape of a published hypernetwork, from its tensors first and its configuration where they do not tell.

use t2l_core::{AdapterLayout, LoraScaling, TargetModule};

use super::archive::Archive;
use super::args::Args;
use super::base::BaseConfig;
use super::error::{ImportError, printable};
use crate::config::{Arch, CLASSES, CODES, Conditioning, HypernetConfig, Offset, Target, TaskEncoder};

/// The configuration that a checkpoint's tensors and arguments describe.
pub(super) fn config(
    archive: &Archive,
    args: &Args,
    scaling: LoraScaling,
    base_model: String,
    base: Option<&BaseConfig>,
) -> Result<HypernetConfig, ImportError> {
    let task_encoder = task_encoder(archive)?;
    let conditioning = match (task_encoder, args.use_one_hot_task_emb) {
        (None, _) => Conditioning::None,
        (_, true) => Conditioning::OneHot,
        (_, false) => Conditioning::Text,
    };
    let target = match (args.training_task.as_str(), args.factorized, args.pred_z_score) {
        ("sft", ..) => Target::Sft,
        (_, true, true) => Target::ZScored,
        (_, true, false) => Target::Factorized,
        (_, false, _) => Target::DeltaW { scaling: args.delta_w_scaling },
    };
    let layout = layout(archive, scaling.rank, base_model, base, task_encoder == Some(TaskEncoder::Discrete))?;
    Ok(HypernetConfig {
        arch: match (args.shared_AB_head, args.autoreg_gen) {
            (false, false) => Arch::L,
            (true, false) => Arch::M,
            (true, true) => Arch::S,
            (false, true) => Arch::LA,
        },
        offset: offset(archive, args, target, &layout, scaling.rank)?,
        layout,
        scaling,
        conditioning,
        embedding: columns(archive, "task_encoder.mlp.0.weight").unwrap_or(0),
        tasks: 0,
        task_encoder: task_encoder.unwrap_or_default(),
        latent: args.hypernet_latent_size,
        head_in: columns(archive, "mlp3.4.bias").unwrap_or(0),
        head_bias: archive.names().any(|name| name.starts_with("heads.") && name.ends_with(".bias")),
        copying: None,
        instructed: None,
        learnable_positions: args.learnable_pos_emb && args.autoreg_gen,
        target,
        dropout: 0.05,
    })
}

/// Last dimension of a tensor.
fn columns(archive: &Archive, name: &str) -> Option<usize> {
    archive.shape(name)?.last().copied()
}

/// The kind of task encoder by the tensors that it has; none without any.
fn task_encoder(archive: &Archive) -> Result<Option<TaskEncoder>, ImportError> {
    let has = |name: &str| archive.has(&format!("task_encoder.{name}"));
    if !has("") {
        return Ok(None);
    }
    if has("mlp.1.") {
        return Ok(Some(TaskEncoder::Linear));
    }
    if has("cluster_size") || has("embed_avg") {
        return Ok(Some(TaskEncoder::Vq));
    }
    match (archive.shape("task_encoder.embed"), archive.shape("task_encoder.mlp.3.bias")) {
        (None, Some([CLASSES])) => Ok(Some(TaskEncoder::Discrete)),
        // Rows are codes for the one, columns for the other, where counts are missing to tell.
        (Some([CODES, c]), Some([CODES])) if *c != CODES => Ok(Some(TaskEncoder::Softmax)),
        (Some([c, CODES]), Some([out])) if c == out && *c != CODES => Ok(Some(TaskEncoder::Vq)),
        (Some([CODES, CODES]), Some([CODES])) => Ok(Some(TaskEncoder::Softmax)),
        _ => Err(ImportError::file(&archive.path, "its task_encoder is of no known kind")),
    }
}

fn layout(
    archive: &Archive,
    rank: usize,
    base_model: String,
    base: Option<&BaseConfig>,
    one_hot_places: bool,
) -> Result<AdapterLayout, ImportError> {
    let depths = if one_hot_places {
        // Depth and type are one-hot beside the classes: the trunk's width tells their number.
        let width = columns(archive, "mixer.1.weight").unwrap_or(0);
        width.checked_sub(CLASSES + archive.modules.len()).filter(|&layers| layers > 0)
    } else {
        archive.shape("layer_depth_encoder.0.weight").and_then(|shape| shape.first().copied())
    };
    let mut layers = depths;
    let mut modules = Vec::new();
    for name in &archive.modules {
        let told = told_by_tensors(archive, name, rank)?;
        let (depth, input, output) = match (told, base) {
            (Some((depth, input, output)), base) => {
                if let Some(base) = base {
                    let (wanted, found) = (base.widths(name)?, (input, output));
                    if wanted != found || base.layers() != depth {
                        let reason = format!(
                            "has {} layers and {wanted:?} as widths of {name}, {} was made for {depth} and {found:?}",
                            base.layers(),
                            archive.path.display()
                        );
                        return Err(ImportError::file(base.path(), reason));
                    }
                }
                (depth, input, output)
            }
            (None, Some(base)) => {
                let (input, output) = base.widths(name)?;
                (base.layers(), input, output)
            }
            (None, None) => {
                let what = format!("the width of {}", printable(name));
                return Err(ImportError::BaseConfigNeeded { path: archive.path.clone(), what });
            }
        };
        if *layers.get_or_insert(depth) != depth {
            let reason = format!("{} layers are told for {}, and another number elsewhere", depth, printable(name));
            return Err(ImportError::file(&archive.path, reason));
        }
        modules.push(TargetModule::new(name, input, output));
    }
    Ok(AdapterLayout { base_model, layers: layers.unwrap_or(0), modules })
}

/// (layers, in, out) of a module from its offsets or statistics: A is `[layers, r, in]`, B is `[layers, out, r]`.
fn told_by_tensors(archive: &Archive, module: &str, rank: usize) -> Result<Option<(usize, usize, usize)>, ImportError> {
    for part in ["AB_offset", "mean_recon_target", "std_recon_target"] {
        let names = ["A", "B"].map(|x| format!("{part}.{x}.{module}"));
        let (Some(a), Some(b)) = (archive.shape(&names[0]), archive.shape(&names[1])) else { continue };
        return match (a, b) {
            (&[layers, r, input], &[also, output, s]) if (r, s, also) == (rank, rank, layers) => {
                Ok(Some((layers, input, output)))
            }
            _ => {
                let reason = format!(
                    "has shape {a:?}, its B {b:?}; [layers, {rank}, in] and [layers, out, {rank}] are expected for the \
                     rank in adapter_config.json"
                );
                Err(ImportError::tensor(&archive.path, &names[0], reason))
            }
        };
    }
    Ok(None)
}

/// Offsets count where they are used and not all zero (the published code always stores some).
fn offset(
    archive: &Archive,
    args: &Args,
    target: Target,
    layout: &AdapterLayout,
    rank: usize,
) -> Result<Offset, ImportError> {
    if !archive.has("AB_offset.") || matches!(target, Target::DeltaW { .. }) {
        return Ok(Offset::None);
    }
    if args.learnable_AB_offset {
        return Ok(Offset::Trainable);
    }
    for m in &layout.modules {
        let shapes = [("A", [layout.layers, rank, m.in_features]), ("B", [layout.layers, m.out_features, rank])];
        for (x, shape) in shapes {
            let values = archive.values(&format!("AB_offset.{x}.{}", m.name), &shape)?;
            if values.iter().any(|&v| v != 0.0) {
                return Ok(Offset::Frozen);
            }
        }
    }
    Ok(Offset::None)
}
