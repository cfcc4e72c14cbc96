//! The allocator of the program on Linux.
//!
//! A step of training frees and asks for the same hundreds of megabytes again and again. The system's allocator gives large
//! buffers back to the kernel and faults them in anew, page by page; jemalloc keeps them, on huge pages.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc reads its settings from this symbol. Large buffers are kept like small ones, and for good.
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 50] = b"thp:always,oversize_threshold:0,dirty_decay_ms:-1\0";
