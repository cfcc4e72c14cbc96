//! Adapters whatever their format: a PEFT folder or a GGUF file.

use std::path::Path;

use burn::tensor::Device;
use t2l_core::Adapter;

use crate::gguf::{self, BaseShape};
use crate::{AdapterError, SaveOptions, fused, peft};

/// How adapters lie on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A folder with adapter_config.json and adapter_model.safetensors.
    Peft,
    /// One GGUF file.
    Gguf,
}

impl Format {
    /// The format that a path means: GGUF for `.gguf`, else a PEFT folder.
    ///
    /// ```
    /// use t2l_adapter::Format;
    /// assert_eq!(Format::of("sort.gguf".as_ref()), Format::Gguf);
    /// assert_eq!(Format::of("adapters/sort".as_ref()), Format::Peft);
    /// ```
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("gguf") && !path.is_dir() => Self::Gguf,
            _ => Self::Peft,
        }
    }
}

/// An adapter with what its files say about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The adapter.
    pub adapter: Adapter,
    /// The task description it was generated from, if the files tell.
    pub description: Option<String>,
    /// How it lay on disk.
    pub format: Format,
}

/// Loads an adapter of either format; `base` is what GGUF files of Llama models may need.
///
/// # Errors
/// A path where there is no adapter, and those of [`peft::load`] and [`gguf::load`].
pub fn load(path: &Path, base: Option<&BaseShape>, device: &Device) -> Result<Loaded, AdapterError> {
    let format = Format::of(path);
    let kind = std::fs::metadata(path).map_err(AdapterError::io(path))?;
    let missing = match format {
        Format::Peft if !kind.is_dir() => Some("a PEFT folder is wanted, or a file whose name ends in .gguf"),
        Format::Peft if !path.join(peft::CONFIG).exists() => Some("the folder holds no adapter_config.json"),
        _ => None,
    };
    if let Some(reason) = missing {
        return Err(AdapterError::NoAdapter { path: path.to_owned(), reason });
    }
    Ok(match format {
        Format::Peft => Loaded { adapter: peft::load(path, device)?, description: peft::description(path)?, format },
        Format::Gguf => {
            let gguf::Read { adapter, description } = gguf::load(path, base, device)?;
            Loaded { adapter, description, format }
        }
    })
}

/// Writes an adapter in the format that `path` means; `base` is what GGUF files need. For a base model that fuses
/// projections, adapters of their parts are fused, as other programs want them.
///
/// # Errors
/// Those of [`fused::fuse`], [`peft::save`] and [`gguf::save`]; a GGUF file without a base model.
pub fn save(
    adapter: &Adapter,
    base: Option<&BaseShape>,
    path: &Path,
    options: &SaveOptions,
) -> Result<(), AdapterError> {
    match (Format::of(path), base) {
        (Format::Peft, None) => peft::save(adapter, path, options),
        (Format::Peft, Some(base)) => peft::save(&fused::fuse(adapter, base)?, path, options),
        (Format::Gguf, Some(base)) => gguf::save(adapter, base, path, options),
        (Format::Gguf, None) => Err(AdapterError::NoBase { path: path.to_owned() }),
    }
}
