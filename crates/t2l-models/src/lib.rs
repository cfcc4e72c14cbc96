//! Where model files come from: manifest, cache, sources, hashes
