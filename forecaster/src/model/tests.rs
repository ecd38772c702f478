//! On generated series only: every one is made here from a formula and a seed.

use super::*;

/// xorshift64*: seeded, the same on every machine.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40;
        f64::from(u32::try_from(bits).unwrap()) / f64::from(1_u32 << 24)
    }

    /// Nearly normal: the sum of twelve uniforms, variance 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

fn options(horizon: usize) -> Options {
    Options {
        horizon,
        season: None,
        upper: None,
    }
}

fn forecast(series: &[f64], options: &Options) -> (Selection, Prediction) {
    let selection = select(series, options).unwrap();
    let prediction = predict(&selection, series, options).unwrap();
    (selection, prediction)
}

fn noisy(n: usize, seed: u64, noise: f64, f: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut random = Random(seed);
    (0..n)
        .map(|i| f(float(i)) + noise * random.normal())
        .collect()
}

#[test]
fn ramp_goes_on() {
    let y = noisy(60, 7, 0.01, |t| 0.1 + 0.006 * t);
    let (selection, p) = forecast(&y, &options(60));
    assert!(
        (p.p50[59] - 0.82).abs() < 0.08,
        "{} {:?}",
        selection.model,
        p.p50[59]
    );
    assert!(selection.skill.unwrap() > 0.5, "{selection:?}");
    let (low, high) = (p.p_breach(0.6), p.p_breach(1.5));
    assert!(low > 0.9 && high < 0.1, "{low} {high} {selection:?}");
}

#[test]
fn ramp_after_a_long_flat_history_is_seen() {
    let y = noisy(360, 3, 0.01, |t| 0.1 + 0.006 * (t - 300.0).max(0.0));
    let (selection, p) = forecast(&y, &options(60));
    assert!(p.p50[59] > 0.7, "{} {:?}", selection.model, p.p50);
    assert!(p.p_breach(0.6) > 0.7, "{}", p.p_breach(0.6));
}

#[test]
fn season_is_found_and_repeats() {
    let wave = |t: f64| 2.0 + (t * std::f64::consts::TAU / 24.0).sin();
    let y = noisy(240, 5, 0.05, wave);
    assert_eq!(detect_season(&y), Some(24));
    let (selection, p) = forecast(&y, &options(24));
    for (h, v) in p.p50.iter().enumerate() {
        assert!(
            (v - wave(float(240 + h))).abs() < 0.25,
            "{} step {h}: {v}",
            selection.model
        );
    }
    assert!(selection.skill.unwrap() >= 0.0);
}

#[test]
fn no_season_in_noise_walks_and_lines() {
    for seed in 1..=40 {
        let noise = noisy(200, seed, 1.0, |_| 5.0);
        assert_eq!(detect_season(&noise), None, "seed {seed}");
    }
    assert_eq!(detect_season(&noisy(100, 1, 0.0, |t| t)), None);
    assert_eq!(detect_season(&[1.0; 100]), None);
}

#[test]
fn constant_stays_with_a_band_of_no_width() {
    let (selection, p) = forecast(&[0.3; 50], &options(10));
    assert_eq!(selection.model, "seasonal_naive");
    assert_eq!(selection.skill, None);
    assert!(p.p05.iter().chain(&p.p95).all(|v| (v - 0.3).abs() < 1e-12));
    assert!(p.p_breach(0.8) < f64::EPSILON);
}

#[test]
fn level_shift_is_followed() {
    let y = noisy(200, 11, 0.02, |t| if t < 150.0 { 0.2 } else { 0.9 });
    let (selection, p) = forecast(&y, &options(20));
    assert!(
        (p.p50[19] - 0.9).abs() < 0.15,
        "{} {:?}",
        selection.model,
        p.p50
    );
}

#[test]
fn too_few_points_are_refused_and_three_are_enough() {
    for y in [&[][..], &[1.0], &[1.0, 2.0]] {
        assert!(matches!(
            select(y, &options(5)),
            Err(ModelError::TooShort { .. })
        ));
    }
    let (_, p) = forecast(&[0.1, 0.3, 0.2], &options(30));
    assert!(
        p.p95
            .iter()
            .zip(&p.p05)
            .all(|(high, low)| high.is_finite() && low.is_finite() && high > low)
    );
}

#[test]
fn bands_are_ordered_monotone_and_bounded() {
    let bounded = Options {
        upper: Some(1.0),
        ..options(40)
    };
    for seed in 1..=30 {
        let mut level = 0.5_f64;
        let mut random = Random(seed);
        let y: Vec<f64> = (0..120)
            .map(|_| {
                level = (level + 0.05 * random.normal()).clamp(0.0, 1.0);
                level
            })
            .collect();
        let (_, p) = forecast(&y, &bounded);
        for h in 0..40 {
            let step = [p.p05[h], p.p10[h], p.p50[h], p.p90[h], p.p95[h]];
            assert!(step.windows(2).all(|w| w[0] <= w[1]), "{step:?}");
            assert!(step.iter().all(|v| (0.0..=1.0).contains(v)), "{step:?}");
        }
    }
}

#[test]
fn band_never_narrows_with_the_horizon() {
    let y = noisy(200, 17, 0.3, |_| 5.0);
    let (selection, _) = forecast(&y, &options(40));
    let band = selection.residuals_for_test().band(0.8);
    assert!(
        band.windows(2)
            .all(|w| w[1].0 <= w[0].0 && w[1].1 >= w[0].1)
    );
}

#[test]
fn seasonal_naive_answers_unless_beaten() {
    for seed in 1..=20 {
        let (selection, _) = forecast(&noisy(150, seed, 1.0, |t| t.sin()), &options(12));
        assert!(selection.skill.is_none_or(|s| s >= 0.0), "{selection:?}");
    }
}

fn generated(kind: usize, seed: u64, n: usize) -> Vec<f64> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut state = 0.0;
    (0..n)
        .map(|i| {
            let e = random.normal();
            match kind {
                0 => {
                    state += e;
                    200.0 + state
                }
                1 => {
                    state = 0.8 * state + e;
                    50.0 + state
                }
                _ => 50.0 + 10.0 * (float(i) * std::f64::consts::TAU / 12.0).sin() + e,
            }
        })
        .collect()
}

/// Shares of the actual values inside the 80 % and the 90 % band, over many series.
fn coverage(kind: usize, n: usize) -> (f64, f64) {
    let horizon = 12;
    let (mut eighty, mut ninety, mut all) = (0, 0, 0);
    for seed in 1..=150 {
        let y = generated(kind, seed, n + horizon);
        let (_, p) = forecast(&y[..n], &options(horizon));
        for (h, actual) in y[n..].iter().enumerate() {
            all += 1;
            eighty += usize::from((p.p10[h]..=p.p90[h]).contains(actual));
            ninety += usize::from((p.p05[h]..=p.p95[h]).contains(actual));
        }
    }
    (float(eighty) / float(all), float(ninety) / float(all))
}

#[test]
fn eighty_percent_bands_cover_eighty_percent() {
    for (kind, name) in ["random walk", "AR(1) 0.8", "season 12"].iter().enumerate() {
        for n in [120, 300] {
            let (c80, c90) = coverage(kind, n);
            println!("{name}, {n} points: 80 % covers {c80:.3}, 90 % covers {c90:.3}");
            assert!(
                (0.75..=0.87).contains(&c80),
                "{name}, {n} points: 80 % covers {c80}"
            );
            assert!(
                (0.84..=0.97).contains(&c90),
                "{name}, {n} points: 90 % covers {c90}"
            );
        }
    }
}
