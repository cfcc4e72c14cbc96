//! Temporary driver.
use std::path::{Path, PathBuf};
use std::time::Instant;
use t2l::training::{ModelPaths, prepare_sft};
use t2l_hypernet::ModelRef;
use t2l_train::{Event, SftConfig, Stop, Validator};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a: Vec<String> = std::env::args().collect();
    let config = SftConfig::load(Path::new(&a[1]))?;
    let device = t2l_core::device::parse("cpu")?;
    let home = PathBuf::from(std::env::var("HOME")?);
    let models = ModelPaths {
        base: home.join(".cache/t2l/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        base_ref: ModelRef { id: "HuggingFaceTB/SmolLM2-135M-Instruct".into(), name: Some("smollm2-135m-instruct".into()), sha256: Some("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".into()) },
        encoder: home.join(".cache/t2l/models/minilm"),
        encoder_ref: ModelRef { id: "sentence-transformers/all-MiniLM-L6-v2".into(), name: Some("all-minilm-l6-v2".into()), sha256: Some("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db".into()) },
    };
    let out = PathBuf::from(&a[2]);
    let mut p = prepare_sft(config, &models, &out, &home.join(".cache/t2l-runs/descriptions.safetensors"), &device, |m| eprintln!("{m}"))?;
    p.run.manifest.config.layout.base_model = "HuggingFaceTB/SmolLM2-135M-Instruct".into();
    p.run.hypernet.config.layout.base_model = "HuggingFaceTB/SmolLM2-135M-Instruct".into();
    let mut v: Vec<&mut dyn Validator> = p.validators.iter_mut().map(|v| v as &mut dyn Validator).collect();
    let mut stop = Stop::new();
    if let Some(n) = a.get(3) { stop = stop.at_step(n.parse()?); }
    let t = Instant::now();
    let (mut sum, mut n, mut tok, mut secs) = (0.0, 0, 0, 0.0);
    let end = p.run.run(&mut v, &stop, |e| match e {
        Event::Step { step, loss, tokens, seconds } => { sum += loss; n += 1; tok += tokens; secs += seconds;
            if step % 10 == 0 || step < 5 { eprintln!("{step} loss {:.3} {:.2} s/step {:.0} tok/s {:.0} s", sum / n as f64, secs / n as f64, tok as f64 / secs, t.elapsed().as_secs_f64()); sum = 0.0; n = 0; tok = 0; secs = 0.0; } }
        other => eprintln!("{other:?}"),
    })?;
    eprintln!("{end:?}");
    Ok(())
}
