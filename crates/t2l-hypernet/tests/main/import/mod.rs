//! Published folders: what they hold arrives, what they hide does not.

mod hostile;
mod pt;
mod reference;
mod small;
