//! Text-to-LoRA: a sentence describing a task in, a LoRA adapter out
