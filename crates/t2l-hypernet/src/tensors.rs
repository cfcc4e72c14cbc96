//! Which tensors a hypernetwork has: names and shapes, as the published checkpoints name them.

use crate::config::{CLASSES, CODES, Conditioning, HypernetConfig, Offset, TaskEncoder};
use crate::instructed::WORN;

/// What a tensor is, which decides its initial value and whether it is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `[out, in]`.
    Weight,
    /// Bias of a linear map with this many inputs.
    Bias(usize),
    /// Weight of a norm.
    NormWeight,
    /// Bias of a norm.
    NormBias,
    /// An embedding table, or one embedding.
    Embedding,
    /// `[out, in]` of a head.
    HeadWeight,
    /// Bias of the head of this module.
    HeadBias(usize),
    /// Offsets of A of this module.
    OffsetA(usize),
    /// Offsets of B.
    OffsetB,
    /// Zero until [`Hypernet::copy_words`](crate::Hypernet::copy_words) or
    /// [`Hypernet::instruct`](crate::Hypernet::instruct) sets it.
    Zero,
    /// Statistics of VQ, not trained by gradient: counts start at zero.
    Count,
    /// Mean of reconstruction targets.
    Mean,
    /// Standard deviation of reconstruction targets.
    Deviation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub name: String,
    pub shape: Vec<usize>,
    pub role: Role,
    pub trained: bool,
}

/// Every tensor of a configuration.
pub(crate) fn specs(config: &HypernetConfig) -> Vec<Spec> {
    let mut list = List(Vec::new());
    let (d, k) = (config.width(), config.latent);
    list.task_encoder(config);
    if !config.one_hot_places() {
        for (part, rows) in
            [("layer_depth_encoder", config.layout.layers), ("layer_type_encoder", config.layout.modules.len())]
        {
            list.add(format!("{part}.0.weight"), &[rows, k / 4], Role::Embedding);
            list.norm(&format!("{part}.1"), k / 4);
        }
    }
    list.linear("mixer.1", d, 4 * d);
    list.linear("mixer.4", 4 * d, d);
    for (block, out) in [("mlp1.mlp", d), ("mlp2.mlp", d), ("mlp3", config.head_in)] {
        list.norm(&format!("{block}.0"), d);
        list.linear(&format!("{block}.1"), d, 4 * d);
        list.linear(&format!("{block}.4"), 4 * d, out);
    }
    let (layers, rank) = (config.layout.layers, config.scaling.rank);
    for (i, m) in config.layout.modules.iter().enumerate() {
        let out = config.head_width(i);
        list.add(format!("heads.{}.weight", m.name), &[out, config.head_in], Role::HeadWeight);
        if config.head_bias {
            list.add(format!("heads.{}.bias", m.name), &[out], Role::HeadBias(i));
        }
        if config.arch.shares_head() {
            list.add(format!("out_emb.{}.A", m.name), &[d], Role::Embedding);
            list.add(format!("out_emb.{}.B", m.name), &[d], Role::Embedding);
        }
        let (a, b) = ([layers, rank, m.in_features], [layers, m.out_features, rank]);
        if config.offset != Offset::None {
            let trained = config.offset == Offset::Trainable;
            list.push(format!("AB_offset.A.{}", m.name), &a, Role::OffsetA(i), trained);
            list.push(format!("AB_offset.B.{}", m.name), &b, Role::OffsetB, trained);
        }
        if config.target == crate::Target::ZScored {
            for (x, shape) in [("A", a), ("B", b)] {
                list.push(format!("mean_recon_target.{x}.{}", m.name), &shape, Role::Mean, false);
                list.push(format!("std_recon_target.{x}.{}", m.name), &shape, Role::Deviation, false);
            }
        }
    }
    if let (Some(copying), Some(module)) = (config.copying, config.values_module()) {
        let m = &config.layout.modules[module];
        list.add("copying.A".into(), &[copying.layers, m.in_features], Role::Zero);
        list.add("copying.gate.weight".into(), &[copying.layers, config.task_width()], Role::Zero);
        list.add("copying.gate.bias".into(), &[copying.layers], Role::Zero);
        list.push("copying.words_to_B".into(), &[copying.layers, m.out_features, copying.words], Role::Zero, false);
    }
    if let (Some(instructed), Some(module)) = (config.instructed, config.values_module()) {
        let (m, layers) = (&config.layout.modules[module], instructed.layers);
        list.add("instructed.A".into(), &[layers, m.in_features], Role::Zero);
        list.add("instructed.gate.weight".into(), &[layers, config.task_width()], Role::Zero);
        list.add("instructed.gate.bias".into(), &[layers], Role::Zero);
        list.add("instructed.always".into(), &[layers, m.out_features], Role::Zero);
        list.push("instructed.scale".into(), &[layers], Role::Zero, false);
        let depth = config.layout.layers;
        for m in &config.layout.modules {
            let (a, b) = ([depth, rank, m.in_features], [depth, m.out_features, rank]);
            list.push(format!("{WORN}.A.{}", m.name), &a, Role::Zero, false);
            list.push(format!("{WORN}.B.{}", m.name), &b, Role::Zero, false);
        }
    }
    if config.arch.shares_head() {
        list.norm("out_emb_norm", d);
    }
    if config.arch.by_rank() && config.learnable_positions {
        list.add("pos_emb.0.weight".into(), &[rank, d], Role::Embedding);
        list.norm("pos_emb.1", d);
    }
    list.0
}

struct List(Vec<Spec>);

impl List {
    fn push(&mut self, name: String, shape: &[usize], role: Role, trained: bool) {
        self.0.push(Spec { name, shape: shape.to_vec(), role, trained });
    }

    fn add(&mut self, name: String, shape: &[usize], role: Role) {
        self.push(name, shape, role, true);
    }

    fn linear(&mut self, name: &str, input: usize, output: usize) {
        self.add(format!("{name}.weight"), &[output, input], Role::Weight);
        self.add(format!("{name}.bias"), &[output], Role::Bias(input));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width], Role::NormWeight);
        self.add(format!("{name}.bias"), &[width], Role::NormBias);
    }

    fn task_encoder(&mut self, config: &HypernetConfig) {
        let (e, c) = (config.read_width(), config.latent / 2);
        match config.conditioning {
            Conditioning::None => return,
            Conditioning::Learned => self.add("task_vectors".into(), &[config.tasks, e], Role::Embedding),
            Conditioning::Text | Conditioning::Input | Conditioning::OneHot => {}
        }
        let mut two_layers = |hidden: usize, out: usize| {
            self.linear("task_encoder.mlp.0", e, hidden);
            self.linear("task_encoder.mlp.3", hidden, out);
        };
        match config.task_encoder {
            TaskEncoder::Linear => {
                self.linear("task_encoder.mlp.0", e, c);
                self.norm("task_encoder.mlp.1", c);
            }
            TaskEncoder::Softmax => {
                two_layers(4 * c, CODES);
                self.add("task_encoder.embed".into(), &[CODES, c], Role::Embedding);
                self.norm("task_encoder.ln", c);
            }
            TaskEncoder::Vq => {
                two_layers(4 * c, c);
                self.push("task_encoder.embed".into(), &[c, CODES], Role::Embedding, false);
                self.push("task_encoder.embed_avg".into(), &[c, CODES], Role::Embedding, false);
                self.push("task_encoder.cluster_size".into(), &[CODES], Role::Count, false);
                self.norm("task_encoder.ln", c);
            }
            TaskEncoder::Discrete => two_layers(4 * CLASSES, CLASSES),
        }
    }
}
