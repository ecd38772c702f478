//! What a change would do to waiting, by a plain stated model.
//!
//! Closed M/M/k//N: N vCPUs, each on or off with demand p, on k CPU threads
//! (`w_n = w_{n−1}·(N−n+1)·r/min(n,k)`, `r = p/(1−p)`), waiting vCPUs
//! `R = E[(n−k)+]`. It knows no per-CPU queues, SMT or bursts that come
//! together, so real waiting is higher: it orders changes, it is no promise.

/// Waiting vCPUs on a host.
///
/// `vcpus` vCPUs of equal demand that together ask for `demand` threads, on
/// `threads` threads. 0 where any of them is 0.
#[must_use]
pub fn waiting(vcpus: i64, demand: f64, threads: i64) -> f64 {
    if vcpus <= 0 || threads <= 0 || demand <= 0.0 {
        return 0.0;
    }
    let (n_vcpus, k) = (super::finding::count(vcpus), super::finding::count(threads));
    let p = (demand / n_vcpus).clamp(1e-6, 0.999);
    let r = p / (1.0 - p);
    // Weights relative to the largest so far, else they overflow for
    // thousands of vCPUs.
    let (mut weight, mut total, mut sum) = (1.0_f64, 1.0_f64, 0.0_f64);
    let mut n = 1.0;
    while n <= n_vcpus {
        weight *= (n_vcpus - n + 1.0) * r / n.min(k);
        if weight > 1e200 {
            (total, sum, weight) = (total / weight, sum / weight, 1.0);
        }
        total += weight;
        sum += weight * (n - k).max(0.0);
        n += 1.0;
    }
    sum / total
}

/// Largest factor on the forecast peak that the hosts still carry under the
/// limit when the largest host fails; 0 with one host. Memory, affinity and
/// placement are not looked at, so a what-if verdict stays "unknown".
///
/// `hosts` are (CPU threads, peak demand in threads).
#[must_use]
pub fn lambda_n1(hosts: &[(f64, f64)], limit: f64) -> f64 {
    let threads: f64 = hosts.iter().map(|h| h.0).sum();
    let largest = hosts.iter().map(|h| h.0).fold(0.0, f64::max);
    let peak: f64 = hosts.iter().map(|h| h.1).sum();
    if peak > 0.0 {
        limit * (threads - largest) / peak
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_matches_small_cases_by_hand() {
        // N=2, k=1, p=1/2: weights 1, 2, 2 → R = 2/5.
        assert!((waiting(2, 1.0, 1) - 0.4).abs() < 1e-12);
        assert!(waiting(4, 2.0, 4) < 1e-12, "never more vCPUs than threads");
        assert!(
            (waiting(4, 4.0, 2) - 2.0).abs() < 0.02,
            "four busy vCPUs on two threads"
        );
        assert!(waiting(5000, 200.0, 128).is_finite());
        assert!(waiting(0, 1.0, 1).abs() < f64::EPSILON);
    }

    #[test]
    fn waiting_grows_with_demand() {
        let at = |d| waiting(58, d, 16);
        assert!(at(10.0) < at(14.5) && at(14.5) < at(20.0));
    }

    #[test]
    fn lambda_of_equal_hosts_is_the_fluid_bound() {
        let hosts = [(64.0, 30.0); 4];
        assert!((lambda_n1(&hosts, 0.85) - 0.85 * 192.0 / 120.0).abs() < 1e-12);
        assert!(lambda_n1(&[(64.0, 30.0)], 0.85).abs() < f64::EPSILON);
    }
}
