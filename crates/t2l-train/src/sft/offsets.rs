//! A multi-task adapter underneath a hypernetwork.

use t2l_core::{Parameter, Parameters};
use t2l_hypernet::{Hypernet, HypernetError, Offset};

use crate::{PlainLora, TrainError};

/// Makes an adapter the offsets of a hypernetwork that has some: what it generates is added to it.
///
/// With [`Init::Zero`](t2l_hypernet::Init::Zero) everything generated is then that adapter, until the first step.
///
/// # Errors
/// A hypernetwork without offsets, or an adapter of other modules or sizes.
pub fn set_offsets(hypernet: &mut Hypernet, adapter: &PlainLora) -> Result<(), TrainError> {
    let holder: &mut Parameters = match hypernet.config.offset {
        Offset::Trainable => &mut hypernet.parameters,
        Offset::Frozen => &mut hypernet.buffers,
        Offset::None => {
            let reason = "must be there to start from an adapter";
            return Err(HypernetError::Config { key: "offset", value: "none".into(), reason }.into());
        }
    };
    let places = holder.iter().filter(|(name, _)| name.starts_with("AB_offset.")).count();
    let fits = |(name, p): (&str, &Parameter)| {
        holder.entry(&format!("AB_offset.{name}")).is_some_and(|place| place.shape == p.shape)
    };
    if places != adapter.parameters.iter().count() || !adapter.parameters.iter().all(fits) {
        let reason = "has other modules or sizes than the hypernetwork writes".to_owned();
        return Err(TrainError::Adapter { source_name: "the adapter underneath".into(), reason });
    }
    for (name, p) in adapter.parameters.iter() {
        if let Some((_, place)) = holder.iter_mut().find(|(place, _)| place.strip_prefix("AB_offset.") == Some(name)) {
            place.values = p.values.clone();
        }
    }
    Ok(())
}
