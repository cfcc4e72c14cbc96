//! Picks a compute device from a string such as `cpu`, `ndarray`, `cuda:0` or `wgpu`.

use burn::tensor::Device;

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

/// Parses `NAME` or `NAME:INDEX`.
///
/// # Errors
/// A name nobody knows, or one whose cargo feature is not compiled in.
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
    open(name, index).ok_or_else(unknown)
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
