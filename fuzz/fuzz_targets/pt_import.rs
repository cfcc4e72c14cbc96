//! A published training folder: args.yaml, adapter_config.json, a base model's config.json, hypermod.pt.
#![no_main]

use libfuzzer_sys::fuzz_target;
use t2l_hypernet::import;

fuzz_target!(|data: &[u8]| {
    let [args, adapter, base, state] = t2l_fuzz::files(data);
    t2l_fuzz::write(import::ARGS, args);
    t2l_fuzz::write(import::ADAPTER_CONFIG, adapter);
    t2l_fuzz::write(import::STATE, state);
    t2l_fuzz::write("config.json", base);
    let config = t2l_fuzz::folder().join("config.json");
    let config = (!base.is_empty()).then_some(config.as_path());
    let _ = import::sakana(t2l_fuzz::folder(), config, t2l_fuzz::device());
});
