//! Text encoders that turn a task description into a vector
