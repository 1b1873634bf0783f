//! The median, and how sure it is.

/// Median and the interval that holds the true one with about 95 % (from 92 to 99), by order statistics: no assumption
/// about how the noise is distributed. With five samples that is smallest to largest; with fewer the same, and less sure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub samples: usize,
}

impl Median {
    /// `None` of nothing.
    pub fn of(samples: &[f64]) -> Option<Median> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let cut = trimmed(n);
        let value = (sorted.get(n.checked_sub(1)? / 2)? + sorted.get(n / 2)?) / 2.0;
        Some(Median { value, low: *sorted.get(cut)?, high: *sorted.get(n - 1 - cut)?, samples: n })
    }

    /// Whether `gate` lies inside the interval, so that more samples may turn the verdict.
    pub fn straddles(&self, gate: f64) -> bool {
        self.low < gate && gate <= self.high
    }
}

/// How many samples on either side may be left out for an interval of at least 92 %.
fn trimmed(n: usize) -> usize {
    let mut cut = 0;
    // The median lies outside the inner n - 2k samples with probability 2 P(Binomial(n, 1/2) <= k).
    let mut tail = 0.5f64.powi(n as i32);
    let mut term = tail;
    for k in 1..n / 2 {
        term *= (n - k + 1) as f64 / k as f64;
        tail += term;
        if 2.0 * tail > 0.08 {
            break;
        }
        cut = k;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(samples: &[f64], expected: (f64, f64, f64)) {
        let median = Median::of(samples).unwrap();
        assert_eq!((median.value, median.low, median.high), expected);
    }

    #[test]
    fn the_interval_narrows_with_more_samples() {
        assert_eq!(Median::of(&[]), None);
        check(&[3.0], (3.0, 3.0, 3.0));
        check(&[4.0, 3.0], (3.5, 3.0, 4.0));
        check(&[5.0, 1.0, 3.0, 2.0, 4.0], (3.0, 1.0, 5.0));
        check(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], (4.0, 1.0, 7.0));
        check(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], (5.0, 2.0, 8.0));
        check(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0], (6.0, 3.0, 9.0));
    }

    #[test]
    fn a_gate_inside_the_interval_is_undecided() {
        let median = Median::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!(median.straddles(2.5) && median.straddles(5.0));
        assert!(!median.straddles(1.0) && !median.straddles(6.0));
    }
}
