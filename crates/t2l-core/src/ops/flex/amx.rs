//! Products of bf16 on processors with AMX (Advanced Matrix Extensions, in Intel's servers since 2023): tiles of 16 × 32 values
//! in registers of their own, an order of magnitude above the rate of vector instructions.
//!
//! The only unsafe code is [`kernel`]: tile instructions over ranges that are checked beside them.

pub use kernel::{available, multiply};

/// Rows of a tile, and columns of one of f32.
const TILE: usize = 16;

/// Pairs of values in a row of a tile.
pub const PAIRS: usize = 16;

/// Rows of `x` that share one pass over a panel.
pub const STRIP: usize = 2 * TILE;

/// Columns of a panel: three tiles, or three vectors of 16.
pub const PANEL: usize = 3 * TILE;

#[cfg(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64"))]
mod kernel {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;

    use super::{PAIRS, PANEL, STRIP, TILE};

    /// Whether the processor has AMX with bf16, and the system lets this process use its tiles.
    ///
    /// The first call asks Linux (5.16 or newer) for the whole process, and for good: its signal frames grow by the tiles'
    /// 8 KiB.
    pub fn available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| {
            const AMX_BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
            const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
            const XFEATURE_XTILEDATA: libc::c_long = 18;
            // With AVX-512 there is leaf 7.
            is_x86_feature_detected!("avx512f")
                && __cpuid_count(7, 0).edx & AMX_BF16_AND_TILE == AMX_BF16_AND_TILE
                // SAFETY: the call takes two numbers and touches no memory of ours; a kernel that does not know it refuses.
                && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) } == 0
        })
    }

    /// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct TileShapes([u8; 64]);

    static SHAPES: TileShapes = {
        let mut shapes = [0; 64];
        shapes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            shapes[16 + 2 * tile] = 64;
            shapes[48 + tile] = TILE as u8;
            tile += 1;
        }
        TileShapes(shapes)
    };

    /// `out[row][column] = x[row] · panel[column]`. `x`: `[STRIP, pairs]`, `panel`: `[pairs, PANEL]`, where `pairs` is a
    /// multiple of [`PAIRS`].
    pub fn multiply(x: &[u32], panel: &[u32], out: &mut [f32; STRIP * PANEL]) {
        let pairs = panel.len() / PANEL;
        assert!(available() && pairs > 0 && pairs.is_multiple_of(PAIRS));
        assert!(x.len() == STRIP * pairs && panel.len() == pairs * PANEL);
        // The steps of the loop are those of three tiles of f32 columns, and of rows of 64 bytes.
        const { assert!(PANEL == 48 && TILE == 16 && PAIRS == 16) };
        // SAFETY: the processor has the instructions and the system allows them. Of `x`, sixteen words are read at a time from
        // each of `STRIP` rows, `pairs / 16` times; of `panel`, three times sixteen words of sixteen rows, as often; `out` is
        // written once, all of it. Tiles are released at the end.
        unsafe {
            asm!(
                "ldtilecfg [{shapes}]",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2",
                "tilezero tmm3", "tilezero tmm4", "tilezero tmm5",
                "2:",
                "tileloadd tmm6, [{upper} + {x_row}*1]",
                "tileloadd tmm7, [{panel} + {row_bytes}*1]",
                "tdpbf16ps tmm0, tmm6, tmm7",
                "tileloadd tmm7, [{panel} + {row_bytes}*1 + 64]",
                "tdpbf16ps tmm1, tmm6, tmm7",
                "tileloadd tmm7, [{panel} + {row_bytes}*1 + 128]",
                "tdpbf16ps tmm2, tmm6, tmm7",
                "tileloadd tmm6, [{lower} + {x_row}*1]",
                "tdpbf16ps tmm5, tmm6, tmm7",
                "tileloadd tmm7, [{panel} + {row_bytes}*1 + 64]",
                "tdpbf16ps tmm4, tmm6, tmm7",
                "tileloadd tmm7, [{panel} + {row_bytes}*1]",
                "tdpbf16ps tmm3, tmm6, tmm7",
                "add {upper}, 64", "add {lower}, 64", "add {panel}, 3072",
                "dec {times}",
                "jnz 2b",
                "tilestored [{out} + {row_bytes}*1], tmm0",
                "tilestored [{out} + {row_bytes}*1 + 64], tmm1",
                "tilestored [{out} + {row_bytes}*1 + 128], tmm2",
                "add {out}, 3072",
                "tilestored [{out} + {row_bytes}*1], tmm3",
                "tilestored [{out} + {row_bytes}*1 + 64], tmm4",
                "tilestored [{out} + {row_bytes}*1 + 128], tmm5",
                "tilerelease",
                shapes = in(reg) &SHAPES,
                upper = inout(reg) x.as_ptr() => _,
                lower = inout(reg) x.as_ptr().add(TILE * pairs) => _,
                x_row = in(reg) pairs * size_of::<u32>(),
                panel = inout(reg) panel.as_ptr() => _,
                // Rows of the panel and of `out` are equally long.
                row_bytes = in(reg) PANEL * size_of::<u32>(),
                times = inout(reg) pairs / PAIRS => _,
                out = inout(reg) out.as_mut_ptr() => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Elsewhere tiles are not used.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64")))]
mod kernel {
    use super::{PANEL, STRIP};

    pub fn available() -> bool {
        false
    }

    pub fn multiply(_: &[u32], _: &[u32], _: &mut [f32; STRIP * PANEL]) {
        unreachable!("tiles are not used here")
    }
}
