//! Trainers for Text-to-LoRA hypernetworks, with exact resume
