use proptest::prelude::*;

use super::*;

fn matrix(rows: usize, cols: usize) -> impl Strategy<Value = Matrix> {
    prop::collection::vec(-2.0_f64..2.0, rows * cols).prop_map(move |values| Matrix::from_columns(rows, cols, values))
}

fn any_matrix() -> impl Strategy<Value = Matrix> {
    (1_usize..9, 1_usize..9).prop_flat_map(|(rows, cols)| matrix(rows, cols))
}

fn far(x: &Matrix, y: &Matrix) -> f64 {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()));
    x.values().iter().zip(y.values()).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

fn check_orthonormal(columns: &Matrix) {
    let gram = columns.transposed_times(columns);
    for i in 0..gram.cols() {
        for (j, x) in gram.column(i).iter().enumerate() {
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((x - expected).abs() < 1e-12, "{x} at {i}, {j}");
        }
    }
}

proptest! {
    #[test]
    fn a_matrix_is_the_product_of_its_parts(m in any_matrix()) {
        let Svd { u, s, v } = svd(&m);
        check_orthonormal(&u);
        check_orthonormal(&v);
        prop_assert!(s.windows(2).all(|w| w[0] >= w[1]));
        prop_assert!(far(&u.scaled_columns(&s).times(&v.transposed()), &m) < 1e-12);
    }

    #[test]
    fn repeated_columns_lower_the_rank(m in (3_usize..9, 1_usize..4).prop_flat_map(|(rows, cols)| matrix(rows, cols))) {
        let mut twice = m.clone();
        twice.append(&m).unwrap();
        let (one, two) = (svd(&m), svd(&twice));
        prop_assert_eq!(one.s.len(), two.s.len());
        for (x, y) in one.s.iter().zip(&two.s) {
            prop_assert!((x * 2.0_f64.sqrt() - y).abs() < 1e-12);
        }
        prop_assert!(far(&two.u.scaled_columns(&two.s).times(&two.v.transposed()), &twice) < 1e-12);
    }

    #[test]
    fn a_product_is_never_needed_whole(b in (2_usize..8, 1_usize..5).prop_flat_map(|(r, c)| matrix(r, c)), cols in 2_usize..8, seed in 0.1_f64..3.0) {
        let at = Matrix::from_columns(cols, b.cols(), (0..cols * b.cols()).map(|i| (i as f64 * seed).sin()).collect());
        let whole = b.times(&at.transposed());
        let product = Product { at, b };
        let norm = whole.values().iter().map(|x| x * x).sum::<f64>().sqrt();
        prop_assert!((product.norm() - norm).abs() < 1e-12 * (1.0 + norm));
        let Svd { u, s, v } = product.svd();
        prop_assert!(far(&u.scaled_columns(&s).times(&v.transposed()), &whole) < 1e-12);
    }

    #[test]
    fn a_space_has_no_angle_to_itself(m in any_matrix()) {
        let u = svd(&m).u;
        for angle in principal_angles(&u, &u) {
            prop_assert!(angle.abs() < 1e-12, "{}", angle);
        }
    }
}

#[test]
fn angles_are_exact_from_tiny_to_right() {
    for angle in [0.0, 1e-10, 0.3, 1.0, std::f64::consts::FRAC_PI_2 - 1e-10, std::f64::consts::FRAC_PI_2] {
        let x = Matrix::from_columns(4, 2, vec![1., 0., 0., 0., 0., 1., 0., 0.]);
        let y = Matrix::from_columns(4, 2, vec![angle.cos(), 0., angle.sin(), 0., 0., 1., 0., 0.]);
        let found = principal_angles(&x, &y);
        assert!(found[0].abs() < 1e-15 && (found[1] - angle).abs() < 1e-15, "{found:?} instead of {angle}");
    }
}

#[test]
fn a_smaller_space_has_fewer_angles() {
    let x = Matrix::from_columns(3, 2, vec![1., 0., 0., 0., 1., 0.]);
    let y = Matrix::from_columns(3, 1, vec![0., 0., 1.]);
    for found in [principal_angles(&x, &y), principal_angles(&y, &x)] {
        assert_eq!(found.len(), 1);
        assert!((found[0] - std::f64::consts::FRAC_PI_2).abs() < 1e-15);
    }
}

#[test]
fn nought_has_no_direction() {
    let nothing = Matrix::zeros(4, 2);
    let Svd { u, s, .. } = svd(&nothing);
    assert!(s.is_empty() && u.cols() == 0 && u.rows() == 4);
    assert!(principal_angles(&u, &Matrix::from_columns(4, 1, vec![1., 0., 0., 0.])).is_empty());
}
