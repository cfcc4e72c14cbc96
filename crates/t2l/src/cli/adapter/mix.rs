//! `t2l adapter mix`: one adapter of several.

use anyhow::bail;
use serde_json::json;
use t2l::adapter::{Loaded, MixMethod, inspect, mix};
use t2l::core::{Adapter, counted, device};

use super::super::args::{Global, MixArgs, Mixing};

pub fn run(args: &MixArgs, global: &Global) -> anyhow::Result<()> {
    let count = args.adapters.len();
    let weights = match args.weights.len() {
        0 => vec![1.0 / count as f64; count],
        given if given == count => args.weights.clone(),
        given => bail!("--weights has {given} for {}; there must be as many", counted(count, "adapter")),
    };
    let method = match (args.method, args.rank) {
        (Mixing::Svd, rank) => MixMethod::Svd { rank },
        (_, Some(_)) => bail!("--rank is for --method svd; the others have the rank that their parts give them"),
        (Mixing::Linear, None) => MixMethod::Linear,
        (Mixing::Cat, None) => MixMethod::Cat,
    };
    let base = super::named_base(&args.base)?;
    let load = |path| super::load(path, base.as_ref(), global);
    let loaded = args.adapters.iter().map(|path| load(path)).collect::<anyhow::Result<Vec<Loaded>>>()?;
    let parts: Vec<(&Adapter, f64)> = loaded.iter().map(|l| &l.adapter).zip(weights.iter().copied()).collect();
    warn_other_base(&loaded);
    let mixed = mix(&parts, method, &device::parse(&global.device)?)?;
    super::save(&mixed, base, &args.output, None, &args.written)?;
    let more = [("rank", json!(inspect(&mixed).rank)), ("modules", json!(mixed.len())), ("weights", json!(weights))];
    super::tell_written(&args.output, &more, global)
}

/// Names may differ and mean the same model; widths that differ are an error later.
fn warn_other_base(loaded: &[Loaded]) {
    let names: Vec<&str> = loaded.iter().map(|l| l.adapter.base_model.as_str()).filter(|n| !n.is_empty()).collect();
    if let Some(other) = names.iter().find(|n| **n != names[0]) {
        eprintln!("warning: the adapters name different base models: {} and {other}", names[0]);
    }
}
