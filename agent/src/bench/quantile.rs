//! The low quantile that the figures are taken at.

/// The tenth percentile: one in ten is faster. `None` of nothing.
pub fn p10(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 10).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_ten_is_faster() {
        let mut values: Vec<f64> = (0..100u8).rev().map(f64::from).collect();
        assert_eq!(p10(&mut values), Some(10.0));
        assert_eq!(p10(&mut [3.0]), Some(3.0));
        assert_eq!(p10(&mut []), None);
    }
}
