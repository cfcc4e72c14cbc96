//! The order of rows in rotated heads: llama.cpp interleaves the two halves of each head.

/// Which heads the rows of a projection belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heads {
    /// `q_proj`.
    Query,
    /// `k_proj`, which may have fewer.
    Key,
}

/// Half-split rows as llama.cpp has them: row `i` of a head goes to `2i`, row `i + d/2` to `2i + 1`.
///
/// `None` when the rows are no whole number of even heads.
pub(super) fn interleave(values: &[f32], rows: usize, heads: usize) -> Option<Vec<f32>> {
    reorder(values, rows, heads, |i, half| if i % 2 == 0 { i / 2 } else { half + i / 2 })
}

/// Undoes [`interleave`].
pub(super) fn half_split(values: &[f32], rows: usize, heads: usize) -> Option<Vec<f32>> {
    reorder(values, rows, heads, |i, half| if i < half { 2 * i } else { 2 * (i - half) + 1 })
}

fn reorder(values: &[f32], rows: usize, heads: usize, from: impl Fn(usize, usize) -> usize) -> Option<Vec<f32>> {
    let size = rows.checked_div(heads).filter(|size| size * heads == rows && size % 2 == 0 && *size > 0)?;
    let width = values.len() / rows;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(size * width) {
        for i in 0..size {
            out.extend_from_slice(head.chunks_exact(width).nth(from(i, size / 2))?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_are_interleaved_head_by_head() {
        let rows: Vec<f32> = (0..8).map(|x| x as f32).collect();
        assert_eq!(interleave(&rows, 8, 2).unwrap(), [0., 2., 1., 3., 4., 6., 5., 7.]);
        assert_eq!(interleave(&rows, 8, 1).unwrap(), [0., 4., 1., 5., 2., 6., 3., 7.]);
    }

    #[test]
    fn rows_that_are_no_whole_heads_are_refused() {
        for (rows, heads) in [(8, 3), (8, 0), (8, 8), (8, 16)] {
            assert_eq!(interleave(&[0.0; 8], rows, heads), None, "{rows} rows, {heads} heads");
        }
    }

    proptest! {
        #[test]
        fn both_ways_cancel(heads in 1_usize..6, half in 1_usize..6, width in 1_usize..5) {
            let rows = heads * half * 2;
            let values: Vec<f32> = (0..rows * width).map(|x| x as f32).collect();
            let there = interleave(&values, rows, heads).unwrap();
            prop_assert_eq!(half_split(&there, rows, heads).unwrap(), values);
        }
    }
}
