//! Shared vocabulary of Text-to-LoRA: devices, adapter layouts and factors, traits, fused tensor operations
