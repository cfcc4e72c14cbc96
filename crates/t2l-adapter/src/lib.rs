//! LoRA adapters as files: PEFT directories in and out
