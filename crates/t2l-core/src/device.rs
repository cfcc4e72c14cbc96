//! Picks a compute device from a string such as `cpu`, `ndarray`, `cuda:0` or `wgpu`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, Tensor};

/// A device that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Not a device this project knows.
    #[error("unknown device {name:?}; this build has: {}", available().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A device whose cargo feature was left out of this build.
    #[error("device {name:?} needs the cargo feature {feature:?}; this build has: {}", available().join(", "))]
    NotCompiled {
        /// What was asked for.
        name: String,
        /// The feature that would bring it.
        feature: &'static str,
    },
    /// A device that this machine does not have, or whose driver it does not have.
    #[error("device {name:?} is not available: {reason}")]
    Unavailable {
        /// What was asked for.
        name: String,
        /// What its driver, or the search for it, said.
        reason: String,
    },
}

/// Names accepted by [`parse`] in this build. `cpu` is flex where compiled in, else ndarray.
pub fn available() -> Vec<&'static str> {
    let mut names = Vec::new();
    if cfg!(any(feature = "flex", feature = "ndarray")) {
        names.push("cpu");
    }
    for (name, compiled) in KINDS.iter().map(|k| (k.0, k.1)) {
        if compiled {
            names.push(name);
        }
    }
    names
}

/// Name, whether compiled in, whether it takes an index.
const KINDS: [(&str, bool, bool); 7] = [
    ("flex", cfg!(feature = "flex"), false),
    ("ndarray", cfg!(feature = "ndarray"), false),
    ("wgpu", cfg!(feature = "wgpu"), true),
    ("vulkan", cfg!(feature = "vulkan"), true),
    ("metal", cfg!(feature = "metal"), true),
    ("cuda", cfg!(feature = "cuda"), true),
    ("rocm", cfg!(feature = "rocm"), true),
];

/// Parses `NAME` or `NAME:INDEX`, and has the device hold a value unless it is a CPU.
///
/// # Errors
/// A name nobody knows, one whose cargo feature is not compiled in, or a device that is not there.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// assert!(t2l_core::device::parse("cpu").is_ok());
/// # }
/// assert!(t2l_core::device::parse("abacus").unwrap_err().to_string().contains("unknown device \"abacus\""));
/// ```
pub fn parse(spec: &str) -> Result<Device, DeviceError> {
    let unknown = || DeviceError::Unknown { name: spec.to_owned() };
    let (name, index) = match spec.split_once(':') {
        None => (spec, None),
        Some((name, index)) => (name, Some(index.parse::<usize>().map_err(|_| unknown())?)),
    };
    let name = match name {
        "cpu" if cfg!(feature = "flex") => "flex",
        "cpu" => "ndarray",
        other => other,
    };
    let &(feature, compiled, indexed) = KINDS.iter().find(|k| k.0 == name).ok_or_else(unknown)?;
    if !indexed && index.is_some_and(|i| i > 0) {
        return Err(unknown());
    }
    if !compiled {
        return Err(DeviceError::NotCompiled { name: spec.to_owned(), feature });
    }
    if !indexed {
        return open(name, index).ok_or_else(unknown);
    }
    probe(spec, || {
        let device = open(name, index)?;
        Tensor::<1>::zeros([1], &device).into_data();
        Some(device)
    })?
    .ok_or_else(unknown)
}

/// Uses a device for the first time: only then, and by a panic, do drivers say that they or the device are missing.
fn probe<T>(name: &str, first_use: impl FnOnce() -> T) -> Result<T, DeviceError> {
    catch_unwind(AssertUnwindSafe(first_use)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        DeviceError::Unavailable { name: name.to_owned(), reason: text.unwrap_or("its driver fails").to_owned() }
    })
}

#[allow(unused_variables, reason = "which arms exist depends on the features")]
fn open(name: &str, index: Option<usize>) -> Option<Device> {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    let kind = || index.map_or(burn::tensor::DeviceKind::DefaultDevice, burn::tensor::DeviceKind::DiscreteGpu);
    match name {
        #[cfg(feature = "flex")]
        "flex" => Some(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Some(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::wgpu(kind())),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(kind())),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::metal(kind())),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(index.unwrap_or(0))),
        #[cfg(feature = "rocm")]
        "rocm" => Some(Device::rocm(index.unwrap_or(0))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_missing_driver_says_is_an_error() {
        assert_eq!(probe("cuda", || 1), Ok(1));
        let error = probe("cuda:9", || panic!("no device {}", 9)).map(|()| 1).expect_err("it panics");
        assert_eq!(error.to_string(), "device \"cuda:9\" is not available: no device 9");
        let error = probe("cuda", || panic!("no driver")).map(|()| 1).expect_err("it panics");
        assert_eq!(error.to_string(), "device \"cuda\" is not available: no driver");
    }
}
