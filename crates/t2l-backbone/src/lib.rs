//! Frozen decoder language models in Burn that wear a different adapter in every row of a batch
