//! Text encoders: f(z) turns a task description into the task embedding a hypernetwork reads.
//!
//! [`BertEncoder`] loads models of the BERT family (MiniLM, BGE, E5, XLM-R) and GTE v1.5 from a folder of Hugging Face
//! files, one stack switched by config.json. [`LastTokenEncoder`] is the last token of any decoder that `t2l-backbone`
//! loads, and [`Encoder`] whichever of the two a folder or file holds; [`QuotedWords`] and
//! [`InstructionEffects`] stand [`Beside`] either. [`EmbeddingTable`] keeps the embeddings of many descriptions in a file.
//!
//! ```
//! use burn::tensor::Device;
//! use t2l_core::TextEncoder;
//! use t2l_encoder::{BertEncoder, EncoderError};
//!
//! fn embed(folder: &std::path::Path, device: &Device) -> Result<(), EncoderError> {
//!     let encoder = BertEncoder::load(folder, device)?.with_id("sentence-transformers/all-MiniLM-L6-v2");
//!     let encoded = encoder.encode(&["Translate the sentence into French", "Add the numbers"])?;
//!     assert_eq!(encoded.embeddings.dims(), [2, encoder.width()]);
//!     Ok(())
//! }
//! ```

mod any;
mod batch;
mod beside;
pub mod config;
mod encoder;
mod error;
mod fingerprint;
mod format;
mod instruction;
mod last_token;
mod model;
pub mod pooling;
mod quoted;
pub mod rope;
mod sentence;
mod table;
mod tokenize;
mod weights;

pub use any::Encoder;
pub use batch::TokenBatch;
pub use beside::Beside;
pub use encoder::{BertEncoder, MAX_DESCRIPTION_BYTES};
pub use error::EncoderError;
pub use fingerprint::{fingerprint, weights_sha256};
pub use format::format_description;
pub use instruction::InstructionEffects;
pub use last_token::LastTokenEncoder;
pub use model::BertModel;
pub use pooling::Pooling;
pub use quoted::{QuotedWords, quotations};
pub use table::EmbeddingTable;
