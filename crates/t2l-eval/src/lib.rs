//! Metrics, benchmarks, conditions, intervals and tables
