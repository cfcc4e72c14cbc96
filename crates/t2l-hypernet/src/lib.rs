//! The hypernetwork: task embeddings in, LoRA factors for every module and layer out
