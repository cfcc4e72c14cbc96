//! A checkpoint of ours: manifest.json and hypernet.safetensors. The hash is set right, to get past it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sha2::{Digest, Sha256};
use t2l_hypernet::Checkpoint;

fuzz_target!(|data: &[u8]| {
    let [manifest, weights] = t2l_fuzz::files(data);
    let _ = Checkpoint::from_bytes(manifest, weights, t2l_fuzz::device());
    let Ok(mut value) = serde_json::from_slice::<Value>(manifest) else { return };
    let Some(object) = value.as_object_mut() else { return };
    let hash: String = Sha256::digest(weights).iter().map(|b| format!("{b:02x}")).collect();
    object.insert("weights_sha256".into(), hash.into());
    let _ = Checkpoint::from_bytes(value.to_string().as_bytes(), weights, t2l_fuzz::device());
});
