//! Adapters trained by gradient descent, without a hypernetwork: one for each task, many at once, or one for all tasks.

mod adapters;
mod library;
mod plain;
mod step;

pub use adapters::{Adapters, HeldOutRow, fused_base};
pub use library::{FinishedTask, Group, INDEX, Library, REPORT, Shard, adapter_of_task};
pub use plain::PlainLora;
pub(crate) use plain::stacked;
pub(crate) use step::of_rows;
pub use step::{AdapterStepOutput, adapter_step};
