//! Metrics, conditions, intervals and tables.
//!
//! [`Evaluator`] scores examples under several conditions: the base model, the adapter of a task's own description,
//! of another task's, of nonsense. [`EvalReport`] holds every number with its interval, averages over tasks, and the
//! paired differences that tell whether the description matters.
//!
//! ```
//! use t2l_eval::{Condition, rouge_l};
//!
//! assert_eq!(Condition::parse("own_train").unwrap(), Condition::OwnTrain);
//! assert!(rouge_l("a b c", &["a b d".into()]) > 0.6);
//! ```

mod answers;
mod condition;
mod distinct;
mod error;
mod generated;
mod metrics;
mod report;
mod run;
mod score;
mod stats;
mod worn;

pub use condition::{Condition, NONSENSE};
pub use distinct::distinct;
pub use error::EvalError;
pub use metrics::{exact_match, first_line, numeric_match, option_named, rouge_l};
pub use report::{EvalReport, Macro, Paired, Row, Scores, summarise};
pub use run::{EvalPlan, Evaluator, Group, Provenance, Scoring, part_of_shots};
pub use stats::{DRAWS, bootstrap, mean, wilson};
pub use worn::{Baselines, TaskAdapters};
