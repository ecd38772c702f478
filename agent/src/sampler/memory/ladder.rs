//! The steps from reclaim to OOM kill, each event at its time.

/// Seconds without a sign of it that end an episode. Reclaim at a limit comes
/// in bursts a few seconds apart; ten tell one squeeze from the next.
const QUIET_TICKS: u32 = 10;

/// A figure that grows with a step of the ladder.
#[derive(Clone, Debug, Default)]
pub struct Sign {
    last: Option<u64>,
}

impl Sign {
    /// By how much the figure grew since the last reading; `None` for the
    /// first, the base. One that falls (a gauge, or a cgroup made anew) is a
    /// new base.
    pub fn growth(&mut self, figure: Option<u64>) -> Option<u64> {
        // A reading that failed leaves the base: nothing is lost.
        let now = figure?;
        let last = self.last.replace(now)?;
        now.checked_sub(last)
    }
}

/// One step of the ladder, watched through one figure or several.
#[derive(Clone, Debug, Default)]
pub struct Rung {
    sign: Sign,
    /// Ticks since the last sign, while an episode is open.
    open: Option<u32>,
}

impl Rung {
    /// Takes the next reading of its figure, a second after the last one; by
    /// how much it grew if that opens an episode.
    pub fn step(&mut self, figure: Option<u64>) -> Option<u64> {
        let growth = self.sign.growth(figure);
        self.grew(growth)
    }

    /// Takes a growth found elsewhere; the growth if that opens an episode.
    pub fn grew(&mut self, growth: Option<u64>) -> Option<u64> {
        let growth = growth.filter(|growth| *growth > 0);
        let open = self.open;
        self.open = match growth {
            Some(_) => Some(0),
            None => open.map(|quiet| quiet + 1).filter(|q| *q < QUIET_TICKS),
        };
        growth.filter(|_| open.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_an_episode() {
        let mut rung = Rung::default();
        assert_eq!(rung.step(Some(100)), None, "the base");
        assert_eq!(rung.step(Some(100)), None);
        assert_eq!(rung.step(Some(103)), Some(3), "it starts");
        assert_eq!(rung.step(Some(110)), None, "it goes on");
        for _ in 1..QUIET_TICKS {
            assert_eq!(rung.step(Some(110)), None);
        }
        assert_eq!(rung.step(Some(111)), None, "still the same");
        for _ in 0..QUIET_TICKS {
            assert_eq!(rung.step(Some(111)), None);
        }
        assert_eq!(rung.step(Some(112)), Some(1), "another one");
    }

    #[test]
    fn what_cannot_be_read_starts_nothing() {
        let mut rung = Rung::default();
        assert_eq!(rung.step(None), None);
        assert_eq!(rung.step(Some(7)), None, "the base");
        assert_eq!(rung.step(None), None);
        assert_eq!(rung.step(Some(9)), Some(2));
        let mut gauge = Rung::default();
        assert_eq!(gauge.step(Some(9)), None);
        assert_eq!(gauge.step(Some(2)), None, "it fell");
        assert_eq!(gauge.step(Some(5)), Some(3));
    }
}
