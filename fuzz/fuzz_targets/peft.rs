//! A PEFT folder: adapter_config.json and adapter_model.safetensors.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [config, weights] = t2l_fuzz::files(data);
    t2l_fuzz::write("adapter_config.json", config);
    t2l_fuzz::write("adapter_model.safetensors", weights);
    let _ = t2l_adapter::peft::load(t2l_fuzz::folder(), t2l_fuzz::device());
});
