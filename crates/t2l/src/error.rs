//! Errors of the facade.

/// Anything that can go wrong between a sentence and an adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something asked for that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The device.
    #[error(transparent)]
    Device(#[from] t2l_core::device::DeviceError),
    /// Model files.
    #[error(transparent)]
    Model(#[from] t2l_models::ModelError),
    /// Adapter files.
    #[error(transparent)]
    Adapter(#[from] t2l_adapter::AdapterError),
    /// The base model.
    #[error(transparent)]
    Backbone(#[from] t2l_backbone::BackboneError),
    /// The encoder.
    #[error(transparent)]
    Encoder(#[from] t2l_encoder::EncoderError),
    /// A description that cannot be encoded.
    #[error(transparent)]
    Encode(#[from] t2l_core::EncodeError),
    /// The hypernetwork.
    #[error(transparent)]
    Hypernet(#[from] t2l_hypernet::HypernetError),
    /// Generating adapters.
    #[error(transparent)]
    Generate(#[from] t2l_core::GenerateError),
    /// Adapters that do not fit.
    #[error(transparent)]
    Fit(#[from] t2l_core::FitError),
    /// Tasks and examples.
    #[error(transparent)]
    Data(#[from] t2l_data::DataError),
    /// Training.
    #[error(transparent)]
    Train(#[from] t2l_train::TrainError),
}
