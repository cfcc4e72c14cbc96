//! Conversations to text.
