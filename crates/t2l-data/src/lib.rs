//! Tasks, descriptions, prompt rendering, tokenised batches and samplers
